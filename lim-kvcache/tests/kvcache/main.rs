//! Tests of the public interface, over a backend that stores a stamp per token.

mod errors;
mod fake;
mod model;
