//! Grouped-query reasoning models with sparse attention: loading, the transformer block, generation.
//!
//! ```
//! use lim_kernels::DType;
//! use lim_model::{Checkpoint, Config, Rope};
//!
//! let config = Config::preset("qwen3-0.6b")?;
//! let weights = Checkpoint::random(DType::BF16, 1).weights(&config, None)?;
//! assert_eq!(weights.layer(0)?.attention.q.0.shape, [2048, 1024]);
//! assert_eq!(Rope::new(&config).table(16).cos.len(), 16 * 64);
//! # Ok::<(), lim_model::Error>(())
//! ```

mod config;
mod error;
mod rope;
mod weights;

pub use config::{Config, Family, RopeConfig, RopeKind};
pub use error::{Error, Result};
pub use rope::{Rope, RopeTable};
pub use weights::{Attention, Checkpoint, LayerWeights, Projection, Weights};
