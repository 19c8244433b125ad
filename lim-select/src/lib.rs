//! Token selection policies of sparse decode attention.
//!
//! A policy ([`Policy`], one file each) says which cached tokens a decode step reads. [`Settings`] is what a user asks
//! for, [`Attention`] what it comes to for one model: a checked budget and a role for every layer.
//! [`decode_attention`] runs one layer's attention by its role on any [`Backend`](lim_kernels::Backend),
//! [`gate_up_and_select`] selects what later ones read beside a product, and [`mod@reference`] is the readable
//! specification of every policy on plain arrays.
//!
//! ```
//! use lim_kernels::PageSize;
//! use lim_select::{ModelHint, Policy, Settings, reference};
//!
//! let qwen3_8b = ModelHint { model_type: "qwen3", name: "Qwen3-8B", layers: 36, hidden: 4096 };
//! let attention = Settings::default().resolve(&qwen3_8b, PageSize::default())?;
//! assert_eq!(attention.policy(), Policy::Lim);
//! assert_eq!(attention.plan().select_layers(), [2, 12]);
//!
//! // Two heads, six tokens, K = 4: sink 0, recent 5, and the two tokens that both heads' rankings put first.
//! let quota = lim_kernels::Quota { sinks: 1, history: 2, window: 1 };
//! let scores = [0.0, 0.5, 0.9, 0.9, 0.1, 0.0, /* head 1 */ 0.0, 0.2, 0.7, 0.3, 0.7, 0.0];
//! assert_eq!(reference::lim(&scores, 2, quota), Some(vec![0, 2, 3, 5]));
//! # Ok::<(), lim_select::Error>(())
//! ```

mod budget;
mod decode;
mod defaults;
mod error;
mod layers;
mod place;
mod plan;
mod policy;
pub mod reference;
mod settings;

pub use budget::Budget;
pub use decode::{Buffers, DecodeAttend, DecodeLayer, decode_attention, gate_up_and_select};
pub use defaults::{ModelHint, default_layers};
pub use error::{Error, Result};
pub use layers::Layers;
pub use place::{KeptMass, Placement};
pub use plan::{Own, Plan, Role};
pub use policy::{Choice, Knob, Mass, Policy, Rule, Schedule, Scoring, SelectRule};
pub use settings::{Attention, ModelFile, Report, Settings};
