//! Tests of the public interface, most of them over a backend that stores a stamp per token.

mod devices;
mod errors;
mod fake;
mod model;
