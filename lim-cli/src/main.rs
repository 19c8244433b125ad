//! lim.
fn main() {}
