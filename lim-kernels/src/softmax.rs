//! What pooling and mass selection ask of their settings, for all backends alike.

use crate::{Error, Result};

/// `scale * log2(e)`: the factor c of [`Pool`](crate::Pool).
pub(crate) fn log2_scale(op: &'static str, scale: f32) -> Result<f32> {
    let c = scale * std::f32::consts::LOG2_E;
    if c > 0.0 && c.is_finite() {
        return Ok(c);
    }
    Err(Error::Value { op, what: "softmax scale", got: scale.into(), must: "positive and finite" })
}

/// `share` in units of 2^-32, at least one.
pub(crate) fn fixed_share(op: &'static str, share: f64) -> Result<u64> {
    if share > 0.0 && share <= 1.0 {
        return Ok(((share * (1u64 << 32) as f64).round() as u64).max(1));
    }
    Err(Error::Value { op, what: "share of the softmax", got: share, must: "above 0 and at most 1" })
}
