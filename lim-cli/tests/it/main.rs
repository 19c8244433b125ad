//! The built binary, run as a user runs it.

mod answers;
mod bench;
mod calibrate;
mod channels;
#[cfg(feature = "cuda")]
mod cuda;
mod eval;
mod generate;
mod models;
mod run;
mod score;
mod selection;
mod small;
mod usage;
