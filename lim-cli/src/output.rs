//! The JSON objects, with the keys that scripts rely on.

use lim_select::Report as Attention;
use serde::Serialize;

use crate::error::{Error, Result};

/// `generate --output json`.
#[derive(Debug, Serialize)]
pub(crate) struct Generated {
    pub(crate) model: String,
    pub(crate) device: String,
    pub(crate) dtype: &'static str,
    pub(crate) attention: Attention,
    pub(crate) sampling: Sampling,
    pub(crate) prompt_ids: Vec<u32>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) timing: Timing,
    pub(crate) sparsity: Sparsity,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sampling {
    pub(crate) temperature: f32,
    pub(crate) top_k: usize,
    pub(crate) top_p: f32,
    pub(crate) min_p: f32,
    pub(crate) repetition_penalty: f32,
    pub(crate) presence_penalty: f32,
    pub(crate) frequency_penalty: f32,
    pub(crate) seed: u64,
    pub(crate) samples: usize,
    pub(crate) max_new_tokens: usize,
    pub(crate) stop: Vec<String>,
    pub(crate) ignore_eos: bool,
    /// Settings that generation_config.json gave.
    pub(crate) from_model: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) text: String,
    pub(crate) token_ids: Vec<u32>,
    /// Natural logarithms under the unscaled softmax.
    pub(crate) logprobs: Vec<f32>,
    pub(crate) finish_reason: &'static str,
    /// Present when the prompt was a problem of the demo model, whose answer can be computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<Check>,
}

/// A demo problem's right answer against the model's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) task: &'static str,
    pub(crate) expected: String,
    pub(crate) answer: Option<String>,
    pub(crate) correct: bool,
}

/// Seconds, and tokens per second over all samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Timing {
    pub(crate) load_s: f64,
    pub(crate) prefill_s: f64,
    pub(crate) decode_s: f64,
    pub(crate) prefill_tokens_per_s: f64,
    pub(crate) decode_tokens_per_s: f64,
}

/// What decode attention read, counted where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Sparsity {
    /// Mean over steps, sequences and layers of the cached tokens.
    pub(crate) mean_context_tokens: f64,
    /// Mean over steps, sequences and layers of the tokens read.
    pub(crate) mean_attended_tokens: f64,
    pub(crate) selections: u64,
    pub(crate) kv_bytes_read: u64,
    pub(crate) kv_bytes_dense: u64,
}

/// `score --output json`.
#[derive(Debug, Serialize)]
pub(crate) struct Scored {
    pub(crate) model: String,
    pub(crate) device: String,
    pub(crate) dtype: &'static str,
    pub(crate) attention: Attention,
    /// Scored tokens: one less than the tokens given.
    pub(crate) tokens: usize,
    pub(crate) nll_mean: f64,
    pub(crate) perplexity: f64,
    pub(crate) nll: Vec<f32>,
    pub(crate) sparsity: Sparsity,
}

impl Timing {
    pub(crate) fn new(load_s: f64, timing: lim_model::Timing) -> Self {
        let lim_model::Timing { prefill_s, decode_s, prefill_tokens_per_s, decode_tokens_per_s } = timing;
        Timing { load_s, prefill_s, decode_s, prefill_tokens_per_s, decode_tokens_per_s }
    }
}

impl From<lim_model::Sparsity> for Sparsity {
    fn from(sparsity: lim_model::Sparsity) -> Self {
        let lim_model::Sparsity {
            mean_context_tokens,
            mean_attended_tokens,
            selections,
            kv_bytes_read,
            kv_bytes_dense,
        } = sparsity;
        Sparsity { mean_context_tokens, mean_attended_tokens, selections, kv_bytes_read, kv_bytes_dense }
    }
}

/// One line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value).map_err(|e| Error::Failed(format!("JSON output: {e}")))?;
    Ok(text + "\n")
}
