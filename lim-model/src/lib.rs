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

mod block;
mod config;
mod engine;
mod error;
mod generate;
mod generation_config;
mod hub;
mod model;
mod model_dir;
mod rope;
mod sampling;
mod schedule;
mod score;
mod sequence;
mod stop;
mod template;
mod tokenizer;
mod usage;
mod weights;
mod workspace;

pub use block::Phase;
pub use config::{Config, Family, RopeConfig, RopeKind};
pub use engine::{Engine, EngineOptions, Event, Totals};
pub use error::{Error, Result};
pub use generate::{END_OF_THINKING, GenerateOptions, Generation, Progress, Sample, generate};
pub use generation_config::GenerationConfig;
pub use hub::{Download, Hub};
pub use model::{Model, Pass};
pub use model_dir::ModelDir;
pub use rope::{Rope, RopeTable};
pub use sampling::{Origin, Sampling, SamplingSettings};
pub use score::ScoreOptions;
pub use sequence::{FinishReason, Request, SeqId, ThinkingBudget, sample_seed};
pub use stop::StopStrings;
pub use template::{ChatTemplate, Message};
pub use tokenizer::{TextStream, Tokenizer};
pub use usage::{Sparsity, Timing, Usage};
pub use weights::{Attention, Checkpoint, LayerWeights, Projection, Weights};
pub use workspace::Workspace;
