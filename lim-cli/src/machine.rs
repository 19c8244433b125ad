//! What the command line asks of a device besides running a model.

use std::hint::black_box;
use std::time::Instant;

use lim_kernels::Backend;
use lim_kernels::cpu::Cpu;

use crate::error::Result;

/// A backend that knows its surroundings.
pub(crate) trait Machine: Backend {
    /// Whether it brings weights to its own element type while it takes them.
    const CONVERTS: bool;
    /// Rows of a prefill chunk that keep it busy.
    const PREFILL_ROWS: usize;
    /// What a reading does, for the report.
    const READING: &'static str;
    /// What a reading reads, far beyond any cache.
    type Yard;

    /// Bytes of free device memory; `None` where weights stay in their files and memory is the system's affair.
    fn free_memory(&self) -> Result<Option<u64>>;

    /// Memory for readings.
    fn yard(&self) -> Self::Yard;

    /// One reading.
    fn bytes_per_s(&mut self, yard: &Self::Yard) -> Result<f64>;
}

/// Bytes that the CPU reads.
const CPU_YARD: usize = 512 << 20;

impl Machine for Cpu {
    const CONVERTS: bool = false;
    const PREFILL_ROWS: usize = 512;
    const READING: &'static str = "read by all threads";
    type Yard = Vec<f32>;

    fn free_memory(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn yard(&self) -> Vec<f32> {
        vec![1.0; CPU_YARD / size_of::<f32>()]
    }

    fn bytes_per_s(&mut self, yard: &Vec<f32>) -> Result<f64> {
        let begun = Instant::now();
        black_box(self.read(yard));
        Ok(size_of_val(&yard[..]) as f64 / begun.elapsed().as_secs_f64())
    }
}

/// Bytes that a GPU copies; it takes twice as many while it does.
#[cfg(feature = "cuda")]
const CUDA_YARD: usize = 256 << 20;

#[cfg(feature = "cuda")]
impl Machine for lim_kernels::cuda::Cuda {
    const CONVERTS: bool = true;
    const PREFILL_ROWS: usize = 2048;
    const READING: &'static str = "copied on the device, read + written";
    type Yard = ();

    fn free_memory(&self) -> Result<Option<u64>> {
        Ok(Some(self.memory()?.0 as u64))
    }

    fn yard(&self) {}

    fn bytes_per_s(&mut self, (): &()) -> Result<f64> {
        Ok(self.copy_bandwidth(CUDA_YARD)?)
    }
}
