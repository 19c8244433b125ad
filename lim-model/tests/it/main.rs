//! Integration tests of lim-model, one module an intent.

mod ahead;
mod batching;
mod config;
mod crowd;
#[cfg(feature = "cuda")]
mod cuda;
mod eager;
mod gates;
mod generating;
mod goldens;
mod hf;
mod hub;
mod loading;
mod prefix;
mod rope;
mod scoring;
mod sparse;
mod template;
mod tiny;
mod tokenizer;
mod watching;
