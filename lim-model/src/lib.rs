//! Grouped-query reasoning models with sparse attention: loading, the transformer block, generation.
//!
//! ```
//! use lim_kernels::{DType, PageSize, cpu::Cpu};
//! use lim_model::{Checkpoint, Config, Engine, EngineOptions, Event, Model, Request};
//! use lim_select::{ModelHint, Settings};
//!
//! // A small random model; ModelDir::open reads one from disk.
//! let preset = Config::preset("qwen3-0.6b")?;
//! let config = Config { layers: 4, hidden: 64, intermediate: 128, vocab: 256, ..preset };
//! let weights = Checkpoint::random(DType::F32, 1).weights(&config, None)?;
//!
//! // LessIsMore with a budget of 32 tokens.
//! let hint = ModelHint { model_type: "qwen3", name: "", layers: config.layers, hidden: config.hidden };
//! let settings = Settings { token_budget: Some(32), ..Settings::default() };
//! let attention = settings.resolve(&hint, PageSize::default())?;
//!
//! let mut cpu = Cpu::new(Some(1))?;
//! let model = Model::load(&mut cpu, config, &weights, 128, |_blocks| ())?;
//! let mut engine = Engine::new(cpu, model, attention, EngineOptions::new(2, 128))?;
//! engine.add(Request::new((0..60).collect(), 10))?;
//! engine.add(Request::new(vec![1, 2, 3], 5))?;
//! let mut tokens = 0;
//! while !engine.is_idle() {
//!     tokens += engine.step()?.iter().filter(|event| matches!(event, Event::Token { .. })).count();
//! }
//! assert_eq!(tokens, 15);
//! let sparsity = engine.usage()?.sparsity();
//! assert!(sparsity.mean_attended_tokens < sparsity.mean_context_tokens);
//! # Ok::<(), lim_model::Error>(())
//! ```

mod block;
mod config;
mod decode;
mod divergence;
mod engine;
mod error;
mod generate;
mod generation_config;
mod hub;
mod kept;
mod memory;
mod model;
mod model_dir;
mod prefix;
mod recall;
mod rope;
mod sampling;
mod schedule;
mod score;
mod sequence;
mod stop;
mod template;
mod tokenizer;
mod trace;
mod usage;
mod walk;
mod weights;
mod workspace;

pub use block::Phase;
pub use config::{Config, Family, RopeConfig, RopeKind};
pub use divergence::Divergence;
pub use engine::{Engine, EngineOptions, Event, Totals};
pub use error::{Error, Result};
pub use generate::{
    END_OF_THINKING, GenerateOptions, Generation, Progress, Sample, generate, thinking_budget,
};
pub use generation_config::GenerationConfig;
pub use hub::{Download, Hub};
pub use kept::{Kept, LayerKept};
pub use memory::Demand;
pub use model::{Model, Pass, Watched};
pub use model_dir::ModelDir;
pub use recall::{Recall, RecallOptions};
pub use rope::{Rope, RopeTable};
pub use sampling::{Origin, Sampling, SamplingSettings};
pub use score::ScoreOptions;
pub use sequence::{FinishReason, Request, SeqId, ThinkingBudget, sample_seed};
pub use stop::StopStrings;
pub use template::{ChatTemplate, Message};
pub use tokenizer::{TextStream, Tokenizer};
pub use trace::{Trace, TraceOptions, TraceStep};
pub use usage::{Sparsity, Timing, Usage};
pub use walk::Continuation;
pub use weights::{Attention, Checkpoint, Gates, LayerWeights, Projection, Weights};
pub use workspace::Workspace;
