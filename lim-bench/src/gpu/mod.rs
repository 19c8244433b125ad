//! Kernel calls prepared as CUDA graphs, one call per cold copy of the data.
//!
//! A function per operation takes a shape and gives [`Prepared`] work; nothing here knows what is done with the times.
//! Shapes are those of Qwen3-8B: 32 query heads, 8 KV heads, head_dim 128, bf16, pages of 16 tokens.

mod attention;
mod gates;
mod pool;
mod rows;
mod selection;
mod weights;

use std::any::Any;
use std::time::Duration;

use lim_kernels::cuda::{Cuda, Graph};
use lim_kernels::{DType, Error, Heads, KvLayout, PageSize, Result};

pub use attention::{append, dense, dense_scored, gather, prefill, score};
pub use gates::{gate_score, key_gates};
pub use pool::{Pool, Rotary};
pub use rows::{embed, sample};
pub use selection::{Rule, pool, select};
pub use weights::{Model, Product};

/// What is measured, and how thoroughly.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Copies of the data that calls take in turn hold together at least this many bytes.
    pub cold_bytes: u64,
    /// Replays behind a median.
    pub replays: usize,
}

/// Calls in a graph of data that need not be cold.
const CALLS: usize = 64;

impl Settings {
    /// Cold data far above any L2 cache.
    pub const FULL: Settings = Settings { cold_bytes: 512 << 20, replays: 21 };
    /// Whether everything runs, not how fast.
    pub const QUICK: Settings = Settings { cold_bytes: 16 << 20, replays: 3 };

    /// Copies of `bytes` bytes that make [`Self::cold_bytes`], at least two.
    pub fn copies(self, bytes: u64) -> usize {
        self.cold_bytes.div_ceil(bytes.max(1)).max(2) as usize
    }
}

/// 32 query heads over 8 KV heads of 128.
///
/// # Errors
/// Never; the counts are constant.
pub fn heads() -> Result<Heads> {
    Heads::new(32, 8, 128)
}

/// Pages of 16 tokens, bf16.
///
/// # Errors
/// Never; the geometry is constant.
pub fn layout() -> Result<KvLayout> {
    Ok(KvLayout { heads: heads()?, page_size: PageSize::default(), dtype: DType::BF16 })
}

/// A graph of calls and everything that they read and write.
pub struct Prepared {
    graph: Graph,
    /// Calls in the graph.
    pub calls: usize,
    /// Fewest bytes that one call must move.
    pub bytes: u64,
    /// Floating-point operations of one call, where they are the limit.
    pub flops: Option<f64>,
    _kept: Box<dyn Any>,
}

impl Prepared {
    /// Runs `call(cuda, 0..calls)` once, so that scratch has its size, then records it. `call` owns what it works on;
    /// it lives as long as the graph.
    fn new(
        cuda: &mut Cuda,
        calls: usize,
        bytes: u64,
        mut call: impl FnMut(&mut Cuda, usize) -> Result<()> + 'static,
    ) -> Result<Self> {
        (0..calls).try_for_each(|index| call(cuda, index))?;
        cuda.synchronize()?;
        let graph = cuda.capture(|cuda| (0..calls).try_for_each(|index| call(cuda, index)))?;
        Ok(Prepared { graph, calls, bytes, flops: None, _kept: Box::new(call) })
    }

    /// Device time of `replays` graphs, after one that is not counted and keeps the device busy until the clock
    /// starts.
    ///
    /// # Errors
    /// When the driver refuses or a kernel failed.
    pub fn elapsed(&self, cuda: &mut Cuda, replays: usize) -> Result<Duration> {
        cuda.replay(&self.graph)?;
        cuda.elapsed(|cuda| (0..replays).try_for_each(|_| cuda.replay(&self.graph)))
    }

    /// Median microseconds of one call over `replays` graphs.
    ///
    /// # Errors
    /// As [`Self::elapsed`].
    pub fn median_us(&self, cuda: &mut Cuda, replays: usize) -> Result<f64> {
        let mut times = Vec::with_capacity(replays);
        for _ in 0..replays.max(1) {
            times.push(self.elapsed(cuda, 1)?.as_secs_f64());
        }
        Ok(median(times) * 1e6 / self.calls as f64)
    }
}

/// The middle of `values`, the upper one of two.
///
/// # Panics
/// When there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn too_few_pages(needed: usize, have: usize) -> Error {
    let must = format!("at least {needed}");
    Error::Range { op: "benchmark", what: "pages of the pool", got: have as u64, must }
}

/// Numbers that look random and repeat from run to run (xorshift64).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Uniform in `[-scale, scale)`.
    pub(crate) fn float(&mut self, scale: f32) -> f32 {
        ((self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
    }

    pub(crate) fn floats(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.float(scale)).collect()
    }

    /// Uniform below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (((self.bits() >> 32) * end as u64) >> 32) as usize
    }
}
