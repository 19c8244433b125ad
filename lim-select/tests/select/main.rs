//! Tests of the public interface. Bodies that need a device are generic over it; `devices` runs them.

mod cases;
mod decode;
mod devices;
mod fast_path;
mod laws;
mod layers;
mod settings;
