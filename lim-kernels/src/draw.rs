//! What every backend's sampler asks of its arguments.

use crate::{Draw, Error, MAX_STOP_TOKENS, Result, SampleParams};

impl SampleParams {
    /// Whether any logit depends on the tokens seen before.
    pub(crate) fn has_penalty(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

impl Draw<'_> {
    /// Whether the settings are in range and the tokens in the vocabulary.
    pub(crate) fn check(&self, op: &'static str, vocab: usize) -> Result<()> {
        let p = &self.params;
        let settings = [
            ("temperature", p.temperature, "at least 0", p.temperature >= 0.0 && p.temperature.is_finite()),
            ("top_p", p.top_p, "above 0, at most 1", p.top_p > 0.0 && p.top_p <= 1.0),
            ("min_p", p.min_p, "from 0 to 1", (0.0..=1.0).contains(&p.min_p)),
            ("repetition_penalty", p.repetition_penalty, "above 0", p.repetition_penalty > 0.0),
            ("presence_penalty", p.presence_penalty, "finite", p.presence_penalty.is_finite()),
            ("frequency_penalty", p.frequency_penalty, "finite", p.frequency_penalty.is_finite()),
        ];
        for (what, got, must, good) in settings {
            if !good || !got.is_finite() {
                return Err(Error::Range { op, what, got: got as u64, must: format!("{must}; got {got}") });
            }
        }
        if self.stop.len() > MAX_STOP_TOKENS {
            let (got, must) = (self.stop.len() as u64, format!("at most {MAX_STOP_TOKENS}"));
            return Err(Error::Range { op, what: "number of stop tokens", got, must });
        }
        let tokens = self.prompt.iter().chain(self.generated).chain(&self.forced);
        match tokens.copied().find(|&t| t as usize >= vocab) {
            Some(t) => {
                let must = format!("below the vocabulary's {vocab}");
                Err(Error::Range { op, what: "token id", got: t.into(), must })
            }
            None => Ok(()),
        }
    }
}
