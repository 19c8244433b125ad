//! The built binary, run as a user runs it.

mod answers;
mod bench;
mod channels;
#[cfg(feature = "cuda")]
mod cuda;
mod eval;
mod generate;
mod models;
mod run;
mod score;
mod small;
mod usage;
