//! What an engine really did: time, tokens, and what attention read, counted where it was read.

use lim_kernels::{Backend, LayerCount};

use crate::{Engine, Result, Totals};

/// An engine's counts at one moment; the difference of two is what happened between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Times and tokens.
    pub totals: Totals,
    /// Decode attention, by layer.
    pub layers: Vec<LayerCount>,
    /// Bytes of one token's keys and values in one layer.
    pub token_bytes: u64,
}

/// How sparse decode attention was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sparsity {
    /// Cached tokens, mean over sequences, steps and layers.
    pub mean_context_tokens: f64,
    /// Tokens that attention read, mean over sequences, steps and layers.
    pub mean_attended_tokens: f64,
    /// Selections made; none for a sequence within the budget.
    pub selections: u64,
    /// KV bytes read by attention and scoring.
    pub kv_bytes_read: u64,
    /// KV bytes that dense attention would have read.
    pub kv_bytes_dense: u64,
}

/// Seconds, and tokens a second over all sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// Prefill, the first draw included.
    pub prefill_s: f64,
    /// Decode.
    pub decode_s: f64,
    /// Prompt tokens computed a second; 0 where there were none.
    pub prefill_tokens_per_s: f64,
    /// Rows decoded a second; 0 where there were none.
    pub decode_tokens_per_s: f64,
}

impl<B: Backend> Engine<B> {
    /// Counts since the engine was made.
    ///
    /// # Errors
    /// When the backend cannot read its counters.
    pub fn usage(&mut self) -> Result<Usage> {
        Ok(Usage {
            totals: self.totals,
            layers: self.backend.read_counters(&self.workspace.counters)?,
            token_bytes: self.cache.layout().token_bytes() as u64,
        })
    }
}

impl Usage {
    /// What happened since `before`, an earlier moment of the same engine.
    pub fn since(&self, before: &Usage) -> Usage {
        let layers = self.layers.iter().zip(&before.layers).map(|(now, then)| LayerCount {
            attended: now.attended - then.attended,
            context: now.context - then.context,
            selections: now.selections - then.selections,
            kv_bytes: now.kv_bytes - then.kv_bytes,
        });
        let (now, then) = (&self.totals, &before.totals);
        Usage {
            totals: Totals {
                prefill_tokens: now.prefill_tokens - then.prefill_tokens,
                reused_tokens: now.reused_tokens - then.reused_tokens,
                prefill_s: now.prefill_s - then.prefill_s,
                decode_tokens: now.decode_tokens - then.decode_tokens,
                decode_steps: now.decode_steps - then.decode_steps,
                decode_s: now.decode_s - then.decode_s,
            },
            layers: layers.collect(),
            token_bytes: self.token_bytes,
        }
    }

    /// The layers' counts in one.
    pub fn sparsity(&self) -> Sparsity {
        let sum = |part: fn(&LayerCount) -> u64| self.layers.iter().map(part).sum::<u64>();
        let context = sum(|layer| layer.context);
        let rows = (self.totals.decode_tokens * self.layers.len() as u64) as f64;
        Sparsity {
            mean_context_tokens: ratio(context as f64, rows),
            mean_attended_tokens: ratio(sum(|layer| layer.attended) as f64, rows),
            selections: sum(|layer| layer.selections),
            kv_bytes_read: sum(|layer| layer.kv_bytes),
            kv_bytes_dense: context * self.token_bytes,
        }
    }

    /// Times and speeds.
    pub fn timing(&self) -> Timing {
        let Totals { prefill_tokens, prefill_s, decode_tokens, decode_s, .. } = self.totals;
        Timing {
            prefill_s,
            decode_s,
            prefill_tokens_per_s: ratio(prefill_tokens as f64, prefill_s),
            decode_tokens_per_s: ratio(decode_tokens as f64, decode_s),
        }
    }
}

/// `a / b`, and 0 where b is 0.
fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}
