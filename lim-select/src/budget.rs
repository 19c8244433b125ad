//! A token budget and how it is cut (LessIsMore, arXiv 2508.07101, section 3).

use lim_kernels::Quota;

use crate::{Error, Result};

/// K tokens, of which the share r goes to sinks and window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    tokens: usize,
    recent_ratio: f64,
    sinks: usize,
}

impl Budget {
    /// K = `tokens`, r = `recent_ratio`, S = `sinks`.
    ///
    /// # Errors
    /// When `tokens` is 0 or exceeds 32 bits, or `recent_ratio` lies outside 0 to 1.
    pub fn new(tokens: usize, recent_ratio: f64, sinks: usize) -> Result<Self> {
        if tokens == 0 || u32::try_from(tokens).is_err() {
            let must = format!("from 1 to {}", u32::MAX);
            return Err(Error::Value { setting: "token_budget", got: tokens.to_string(), must });
        }
        if !(0.0..=1.0).contains(&recent_ratio) {
            let must = "from 0 to 1".into();
            return Err(Error::Value { setting: "recent_ratio", got: recent_ratio.to_string(), must });
        }
        Ok(Budget { tokens, recent_ratio, sinks })
    }

    /// `M = floor(K (1-r) + 1e-9)`; S is 0 where `K-M < S`; `W = K-M-S`.
    ///
    /// The current token is the last of the window. `W = 0` happens at r = 0 (and where S takes all of `K-M`): then
    /// the current token is a candidate like any other and is attended only if it is picked.
    pub fn quota(self) -> Quota {
        let Budget { tokens, recent_ratio, sinks } = self;
        let history = (tokens as f64 * (1.0 - recent_ratio) + 1e-9).floor() as usize;
        let rest = tokens - history.min(tokens);
        let sinks = if rest < sinks { 0 } else { sinks };
        Quota { sinks, history: tokens - rest, window: rest - sinks }
    }
}

/// `quota` with the current token in its window.
pub(crate) fn with_current(quota: Quota) -> Quota {
    let Quota { sinks, history, window } = quota;
    match (window, history) {
        (0, 0) => Quota { sinks: sinks - 1, history, window: 1 },
        (0, _) => Quota { sinks, history: history - 1, window: 1 },
        _ => quota,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_token_takes_a_place() {
        let parts = |sinks, history, window| Quota { sinks, history, window };
        assert_eq!(with_current(parts(4, 12, 0)), parts(4, 11, 1));
        assert_eq!(with_current(parts(4, 0, 0)), parts(3, 0, 1));
        assert_eq!(with_current(parts(4, 2, 3)), parts(4, 2, 3));
    }

    fn quota(tokens: usize, ratio: f64, sinks: usize) -> (usize, usize, usize) {
        let q = Budget::new(tokens, ratio, sinks).expect("valid").quota();
        assert_eq!(q.budget(), tokens);
        (q.sinks, q.history, q.window)
    }

    #[test]
    fn cuts_as_the_paper_does() {
        assert_eq!(quota(2048, 0.25, 4), (4, 1536, 508));
        assert_eq!(quota(4, 0.25, 0), (0, 3, 1));
        // 10 * (1 - 0.9) is 0.99999..., which the 1e-9 lifts to 1.
        assert_eq!(quota(10, 0.9, 0), (0, 1, 9));
    }

    #[test]
    fn drops_sinks_that_do_not_fit() {
        assert_eq!(quota(4, 0.25, 4), (0, 3, 1));
        assert_eq!(quota(16, 0.25, 4), (4, 12, 0));
        assert_eq!(quota(2048, 0.0, 4), (0, 2048, 0));
    }

    #[test]
    fn all_recent() {
        assert_eq!(quota(2048, 1.0, 4), (4, 0, 2044));
        assert_eq!(quota(1, 1.0, 0), (0, 0, 1));
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        for (tokens, ratio) in [(0, 0.5), (1, -0.1), (1, 1.1), (1, f64::NAN)] {
            Budget::new(tokens, ratio, 0).expect_err("out of range");
        }
    }
}
