//! Kernels for decoding grouped-query transformers over a paged KV cache, dense or over a selected token set.
//!
//! [`Backend`] is the seam: a model written against it runs on every device. `cpu` is the readable specification and
//! fast on AVX2 and AVX-512; `cuda` (feature of that name) runs on NVIDIA GPUs. This crate holds no models and no
//! policies.

mod backend;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod draw;
mod dtype;
mod error;
mod gates;
mod layout;
mod softmax;
mod step;
mod tensor;

pub use backend::*;
pub use dtype::DType;
pub use error::{Error, Result};
pub use gates::{GateScore, KeyGates, PageGates};
pub use layout::{Heads, KvLayout, PageExtras, PageSize};
pub use step::{SeqStep, Step};
pub use tensor::Tensor;
