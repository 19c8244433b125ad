//! Tables of rotary cosines and sines, rounded as HF rounds them.
//!
//! HF keeps inverse frequencies in float32 and multiplies them by the position in float32; at position 8000 the
//! exact product would differ by a visible angle. Each step here rounds where `modeling_rope_utils` rounds; powers,
//! cosines and sines are evaluated in float64 and rounded once.

use std::f64::consts::PI;

use crate::{Config, RopeConfig, RopeKind};

/// Cosines and sines by position: `[positions, half]` float32 row-major, `half = head_dim / 2`, scaled by the rope
/// kind's attention factor. What `Backend::rope` takes.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
    /// Row width.
    pub half: usize,
}

/// A model's rotary embedding.
///
/// ```
/// use lim_model::{Config, Rope};
///
/// let rope = Rope::new(&Config::preset("qwen3-0.6b")?);
/// let table = rope.table(100);
/// assert_eq!((table.half, table.cos.len()), (64, 6400));
/// assert!(rope.prefill_table(100).is_none());
/// # Ok::<(), lim_model::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rope {
    config: RopeConfig,
    head_dim: usize,
}

impl Rope {
    /// The rotary embedding of `config`.
    pub fn new(config: &Config) -> Self {
        Rope { config: config.rope.clone(), head_dim: config.heads.dim() }
    }

    /// The table for decoding, and for those prefills that have no [`Rope::prefill_table`] of their own: row p is
    /// for a sequence whose last token stands at position p.
    pub fn table(&self, positions: usize) -> RopeTable {
        let mut table = self.empty(positions);
        let fixed = self.inv_freq(1);
        for p in 0..positions {
            match self.grown(p + 1) {
                true => self.push_row(&mut table, p, &self.inv_freq(p + 1)),
                false => self.push_row(&mut table, p, &fixed),
            }
        }
        table
    }

    /// The table for a prefill of `len` tokens where it is not the decode table: dynamic NTK scaling rotates all
    /// rows by the whole length's frequencies once that exceeds the model's own length.
    pub fn prefill_table(&self, len: usize) -> Option<RopeTable> {
        if !self.grown(len) {
            return None;
        }
        let mut table = self.empty(len);
        let inv_freq = self.inv_freq(len);
        for p in 0..len {
            self.push_row(&mut table, p, &inv_freq);
        }
        Some(table)
    }

    fn grown(&self, len: usize) -> bool {
        matches!(self.config.kind, RopeKind::Dynamic { max_positions, .. } if len > max_positions)
    }

    fn empty(&self, positions: usize) -> RopeTable {
        let half = self.head_dim / 2;
        let column = || Vec::with_capacity(positions * half);
        RopeTable { cos: column(), sin: column(), half }
    }

    fn push_row(&self, table: &mut RopeTable, position: usize, inv_freq: &[f32]) {
        let scale = match self.config.kind {
            RopeKind::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        };
        for f in inv_freq {
            let (sin, cos) = f64::from(position as f32 * f).sin_cos();
            table.cos.push(cos as f32 * scale);
            table.sin.push(sin as f32 * scale);
        }
    }

    /// Inverse frequencies `[half]` for a sequence of `len` tokens; only dynamic scaling looks at `len`.
    fn inv_freq(&self, len: usize) -> Vec<f32> {
        let dim = self.head_dim;
        let base = match self.config.kind {
            RopeKind::Dynamic { .. } => self.dynamic_base(len),
            _ => self.config.theta as f32,
        };
        let powers = (0..dim).step_by(2).map(|i| pow(base, i as f32 / dim as f32));
        match self.config.kind {
            RopeKind::Default | RopeKind::Dynamic { .. } => powers.map(|w| 1.0 / w).collect(),
            RopeKind::Linear { factor } => powers.map(|w| 1.0 / w / factor as f32).collect(),
            RopeKind::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                let original = original_max_positions as f64;
                let (low, high) = (low_freq_factor, high_freq_factor);
                powers.map(|w| llama3(1.0 / w, factor as f32, low, high, original)).collect()
            }
            RopeKind::Yarn { factor, original_max_positions, beta_fast, beta_slow, truncate, .. } => {
                let end = |rotations| self.correction_dim(rotations, original_max_positions);
                let ramp = Ramp::new(end(beta_fast), end(beta_slow), dim, truncate);
                powers
                    .enumerate()
                    .map(|(i, w)| {
                        let kept = 1.0 - ramp.at(i);
                        1.0 / (factor as f32 * w) * (1.0 - kept) + 1.0 / w * kept
                    })
                    .collect()
            }
        }
    }

    /// `theta * (factor * len / max - (factor - 1)) ^ (dim / (dim - 2))`, in float32 like HF's tensor of one length.
    fn dynamic_base(&self, len: usize) -> f32 {
        let RopeKind::Dynamic { factor, max_positions } = self.config.kind else {
            return self.config.theta as f32;
        };
        if len <= max_positions {
            return self.config.theta as f32;
        }
        let dim = self.head_dim as f64;
        let stretch = factor as f32 * len as f32 / max_positions as f32 - (factor - 1.0) as f32;
        self.config.theta as f32 * f64::from(stretch).powf(dim / (dim - 2.0)) as f32
    }

    /// The dimension that turns `rotations` times over `len` positions.
    fn correction_dim(&self, rotations: f64, len: usize) -> f64 {
        let dim = self.head_dim as f64;
        dim * (len as f64 / (rotations * 2.0 * PI)).ln() / (2.0 * self.config.theta.ln())
    }
}

fn pow(base: f32, exponent: f32) -> f32 {
    f64::from(base).powf(f64::from(exponent)) as f32
}

fn llama3(inv_freq: f32, factor: f32, low: f64, high: f64, original: f64) -> f32 {
    let wavelength = (2.0 * PI) as f32 / inv_freq;
    if wavelength < (original / high) as f32 {
        inv_freq
    } else if wavelength > (original / low) as f32 {
        inv_freq / factor
    } else {
        let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
        (1.0 - smooth) * inv_freq / factor + smooth * inv_freq
    }
}

/// 0 up to dimension `from`, 1 from dimension `from + width` on, linear between.
struct Ramp {
    from: f32,
    width: f32,
}

impl Ramp {
    fn new(from: f64, to: f64, dim: usize, truncate: bool) -> Self {
        let (from, to) = if truncate { (from.floor(), to.ceil()) } else { (from, to) };
        let (from, to) = (from.max(0.0), to.min(dim as f64 - 1.0));
        let width = if from == to { 0.001 } else { to - from };
        Ramp { from: from as f32, width: width as f32 }
    }

    fn at(&self, dimension: usize) -> f32 {
        ((dimension as f32 - self.from) / self.width).clamp(0.0, 1.0)
    }
}
