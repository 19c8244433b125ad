//! What the command line asks of a device besides running a model.

use lim_kernels::Backend;
use lim_kernels::cpu::Cpu;

use crate::error::Result;

/// A backend that knows its surroundings.
pub(crate) trait Machine: Backend {
    /// Whether it brings weights to its own element type while it takes them.
    const CONVERTS: bool;

    /// Bytes of free device memory; `None` where weights stay in their files and memory is the system's affair.
    fn free_memory(&self) -> Result<Option<u64>>;
}

impl Machine for Cpu {
    const CONVERTS: bool = false;

    fn free_memory(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

#[cfg(feature = "cuda")]
impl Machine for lim_kernels::cuda::Cuda {
    const CONVERTS: bool = true;

    fn free_memory(&self) -> Result<Option<u64>> {
        Ok(Some(self.memory()?.0 as u64))
    }
}
