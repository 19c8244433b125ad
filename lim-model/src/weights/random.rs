//! Random weights of the right shapes, for measuring a model's speed without its checkpoint.

use bytemuck::Pod;
use half::{bf16, f16};
use lim_kernels::{DType, HostBytes, HostTensor};

use super::convert::{host_bytes, room};
use crate::Result;

/// Random tensors: the same seed, name and shape give the same values, whatever is asked for before.
#[derive(Debug)]
pub(super) struct Random {
    pub(super) dtype: DType,
    pub(super) seed: u64,
}

impl Random {
    /// Norm weights are 1. All else is uniform with variance 1 / (last extent), so that a linear layer keeps the
    /// variance of its input.
    pub(super) fn tensor<const R: usize>(&self, name: &str, shape: [usize; R]) -> Result<HostTensor<R>> {
        let len = shape.iter().product();
        let is_norm = R == 1 && name.ends_with("norm.weight");
        let width = shape.last().copied().unwrap_or(1).max(1);
        let scale = (3.0 / width as f64).sqrt() / 32_768.0;
        let key = name.bytes().fold(self.seed, |h, b| mix(h ^ u64::from(b)));
        let value = |bits: u16| match is_norm {
            true => 1.0,
            false => ((f64::from(bits as i16) + 0.5) * scale) as f32,
        };
        let bytes = match self.dtype {
            DType::F32 => fill(key, len, value)?,
            DType::F16 => fill(key, len, |bits| f16::from_f32(value(bits)))?,
            DType::BF16 => fill(key, len, |bits| bf16::from_f32(value(bits)))?,
        };
        Ok(HostTensor { dtype: self.dtype, shape, bytes })
    }
}

fn fill<T: Pod + Send + Sync>(key: u64, len: usize, value: impl Fn(u16) -> T) -> Result<HostBytes> {
    let mut elements: Vec<T> = room(len)?;
    // Four elements from each 64-bit word.
    for word in 0..(len / 4) as u64 {
        let bits = mix(key.wrapping_add(word));
        elements.extend([0, 16, 32, 48].map(|shift| value((bits >> shift) as u16)));
    }
    let bits = mix(key ^ u64::MAX);
    elements.extend((0..len % 4).map(|i| value((bits >> (16 * i)) as u16)));
    let bytes = size_of_val(&elements[..]);
    host_bytes(elements, bytes)
}

/// SplitMix64's output function (Steele, Lea and Flood, 2014) over a Weyl sequence.
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
