//! Random weights of the right shapes, for measuring a model's speed without its checkpoint.

use bytemuck::Pod;
use half::{bf16, f16};
use lim_kernels::{DType, HostBytes, HostTensor};

use super::convert::{host_bytes, room};
use crate::Result;

/// Random tensors: the same seed, name and shape give the same values, whatever is asked for before.
#[derive(Clone, Debug)]
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
        let scale = (3.0 / width as f64).sqrt();
        let key = name.bytes().fold(self.seed, |h, b| mix(h ^ u64::from(b)));
        let level = |i: usize| match is_norm {
            true => 1.0,
            false => (((i as f64 + 0.5) / LEVELS as f64 * 2.0 - 1.0) * scale) as f32,
        };
        let bytes = match self.dtype {
            DType::F32 => fill(key, len, level)?,
            DType::F16 => fill(key, len, |i| f16::from_f32(level(i)))?,
            DType::BF16 => fill(key, len, |i| bf16::from_f32(level(i)))?,
        };
        Ok(HostTensor { dtype: self.dtype, shape, bytes })
    }
}

/// Distinct values; few enough for a table that stays in the first cache.
const LEVELS: usize = 4096;
/// Elements drawn from one random word.
const PER_WORD: usize = 4;
/// Elements worth a thread.
const PER_THREAD: usize = 1 << 18;

/// `len` elements drawn from `level(0..LEVELS)`, on all processors: making 8 billion weights should not take longer
/// than copying them to a device.
fn fill<T: Pod + Send + Sync>(key: u64, len: usize, level: impl Fn(usize) -> T) -> Result<HostBytes> {
    let levels: Vec<T> = (0..LEVELS).map(level).collect();
    let mut elements: Vec<T> = room(len)?;
    elements.resize(len, T::zeroed());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = len.div_ceil(threads).max(PER_THREAD).next_multiple_of(PER_WORD);
    let draw = |part: &mut [T], first: usize| {
        for (word, few) in part.chunks_mut(PER_WORD).enumerate() {
            let bits = mix(key.wrapping_add((first + word) as u64));
            for (i, element) in few.iter_mut().enumerate() {
                *element = levels[(bits >> (16 * i)) as usize % LEVELS];
            }
        }
    };
    std::thread::scope(|scope| {
        for (i, part) in elements.chunks_mut(share).enumerate() {
            let draw = &draw;
            scope.spawn(move || draw(part, i * share / PER_WORD));
        }
    });
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
