//! Tests of the public interface. Bodies that need a device are generic over it.

mod cases;
mod laws;
mod layers;
mod settings;
