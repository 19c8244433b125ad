//! Integration tests of lim-model, one module an intent.

mod config;
mod goldens;
mod loading;
mod rope;
mod template;
mod tokenizer;
