//! The CUDA backend: device memory, one stream, graphs, and a thin wrapper per kernel.
//!
//! Kernels live in `csrc/` behind the C header `lim_kernels.h`; `docs/kernels.md` lists them. A binary built with
//! feature `cuda` also starts on machines without a GPU: [`Cuda::new`] then says what is missing.

mod append;
mod attend;
mod backend;
mod bandwidth;
mod batch;
mod buffer;
mod check;
mod context;
mod convert;
mod counters;
mod draws;
#[allow(dead_code, missing_docs, non_camel_case_types, unreachable_pub, clippy::all)]
mod ffi;
mod gates;
mod gemm;
mod graph;
mod kv;
mod linear;
mod outbox;
mod pool;
mod rows;
mod sample;
mod score;
mod scores;
mod select;
mod selection;
mod staging;
mod status;
mod weights;

pub use batch::CudaBatch;
pub use buffer::Buffer;
pub use context::Cuda;
pub use counters::CudaCounters;
pub use draws::CudaDraws;
pub use graph::Graph;
pub use kv::CudaKv;
pub use rows::CudaRows;
pub use scores::CudaScores;
pub use selection::CudaSelection;
pub use weights::{CudaLinear, CudaRope, CudaVector};
