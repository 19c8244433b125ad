//! The rotary embedding's settings: `rope_scaling` (transformers 4) or `rope_parameters` (5).

use super::{MAX_POSITIONS, Object};
use crate::{Error, Result};

/// Rotary embedding of the whole head, in pairs `(i, i + head_dim/2)`.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the wavelengths.
    pub theta: f64,
    /// How the model's context was stretched.
    pub kind: RopeKind,
}

/// Context extensions, with keys and formulas of HF's `modeling_rope_utils`.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeKind {
    /// None.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// At least the stretch wanted; positive.
        factor: f64,
    },
    /// NTK-aware: the base grows with the sequence once it is longer than `max_positions`.
    Dynamic {
        /// Positive.
        factor: f64,
        /// Length up to which nothing changes.
        max_positions: usize,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, smooth between.
    Llama3 {
        /// Positive.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Context length before stretching.
        original_max_positions: usize,
    },
    /// YaRN (arXiv 2309.00071): a linear ramp over the dimensions between interpolated and kept frequencies.
    Yarn {
        /// Positive.
        factor: f64,
        /// Context length before stretching.
        original_max_positions: usize,
        /// Multiplies cosines and sines: given, or derived from factor, mscale and mscale_all_dim.
        attention_factor: f64,
        /// Rotations above which a dimension is kept.
        beta_fast: f64,
        /// Rotations below which a dimension is interpolated.
        beta_slow: f64,
        /// Round the ramp's ends to whole dimensions.
        truncate: bool,
    },
}

const POSITIVE: &str = "a positive number";

fn positive(x: f64) -> bool {
    x > 0.0
}

impl RopeConfig {
    pub(super) fn read(json: &Object<'_>, head_dim: usize, max_positions: usize) -> Result<Self> {
        let params = match json.object("rope_scaling")? {
            Some(scaling) => Some(scaling),
            None => json.object("rope_parameters")?,
        };
        let above_one = |x: f64| x > 1.0;
        let theta = |o: &Object<'_>| o.number("rope_theta", "a number above 1", above_one);
        let outer = theta(json)?;
        let Some(params) = params else {
            return Ok(RopeConfig { theta: outer.unwrap_or(10_000.0), kind: RopeKind::Default });
        };
        if let Some(layer_type) = params.nested() {
            return Err(Error::Unsupported {
                file: json.file().into(),
                what: "rope of one layer type".into(),
                found: layer_type.into(),
                supported: "only one rope for all layers".into(),
            });
        }
        let theta = theta(&params)?.or(outer).unwrap_or(10_000.0);
        let partial = params.number("partial_rotary_factor", "a number", |_| true)?;
        if partial.is_some_and(|x| x != 1.0) {
            return Err(params.value_error("partial_rotary_factor", "1, a rotation of the whole head"));
        }
        let kind = match params.string("rope_type")? {
            Some(kind) => Some(kind),
            None => params.string("type")?,
        };
        let original = |key_owner: &Object<'_>| original_max_positions(json, key_owner, max_positions);
        let factor = || params.need_number("factor", POSITIVE, positive);
        let kind = match kind {
            None | Some("default") => RopeKind::Default,
            Some("linear") => RopeKind::Linear { factor: factor()? },
            Some("dynamic") if head_dim <= 2 => {
                let must = "of another type: dynamic needs a head_dim above 2";
                return Err(json.value_error("rope_scaling", must));
            }
            Some("dynamic") => RopeKind::Dynamic { factor: factor()?, max_positions },
            Some("llama3") => {
                let low = params.need_number("low_freq_factor", POSITIVE, positive)?;
                let must = format!("a number above low_freq_factor, {low}");
                RopeKind::Llama3 {
                    factor: factor()?,
                    low_freq_factor: low,
                    high_freq_factor: params.need_number("high_freq_factor", &must, |x| x > low)?,
                    original_max_positions: original(&params)?,
                }
            }
            Some("yarn") => yarn(&params, original(&params)?, max_positions)?,
            Some(other) => {
                return Err(Error::Unsupported {
                    file: json.file().into(),
                    what: "rope type".into(),
                    found: other.into(),
                    supported: "default, linear, dynamic, llama3, yarn".into(),
                });
            }
        };
        Ok(RopeConfig { theta, kind })
    }
}

/// HF's order: the config's own key, the rope object's, then `max_position_embeddings`.
fn original_max_positions(json: &Object<'_>, params: &Object<'_>, max_positions: usize) -> Result<usize> {
    const KEY: &str = "original_max_position_embeddings";
    let outer = json.count(KEY, 1..=MAX_POSITIONS)?;
    let inner = params.count(KEY, 1..=MAX_POSITIONS)?;
    Ok(outer.or(inner).unwrap_or(max_positions))
}

fn yarn(params: &Object<'_>, original: usize, max_positions: usize) -> Result<RopeKind> {
    let factor = match params.number("factor", POSITIVE, positive)? {
        Some(factor) => factor,
        // An explicit null means the ratio of the two lengths (DeepSeek-V3's files).
        None if params.has("factor") => max_positions as f64 / original as f64,
        None => return Err(params.value_error("factor", POSITIVE)),
    };
    let not_negative = |key| params.number(key, "a number, 0 or more", |x| x >= 0.0);
    // HF treats 0 as not given in all of these.
    let given = |key| not_negative(key).map(|x: Option<f64>| x.filter(|x| *x != 0.0));
    let magnitude = |scale: f64, m: f64| if scale <= 1.0 { 1.0 } else { 0.1 * m * scale.ln() + 1.0 };
    let attention_factor = match params.number("attention_factor", POSITIVE, positive)? {
        Some(x) => x,
        None => match (given("mscale")?, given("mscale_all_dim")?) {
            (Some(m), Some(all)) => magnitude(factor, m) / magnitude(factor, all),
            _ => magnitude(factor, 1.0),
        },
    };
    Ok(RopeKind::Yarn {
        factor,
        original_max_positions: original,
        attention_factor,
        beta_fast: given("beta_fast")?.unwrap_or(32.0),
        beta_slow: given("beta_slow")?.unwrap_or(1.0),
        truncate: params.bool("truncate")?.unwrap_or(true),
    })
}
