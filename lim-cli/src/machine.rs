//! What the command line asks of a device besides running a model.

use lim_kernels::Backend;
use lim_kernels::cpu::Cpu;

use crate::error::Result;

/// A backend that knows its surroundings.
pub(crate) trait Machine: Backend {
    /// Bytes of free device memory; `None` where weights stay in their files and memory is the system's affair.
    fn free_memory(&self) -> Result<Option<u64>>;
}

impl Machine for Cpu {
    fn free_memory(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

#[cfg(feature = "cuda")]
impl Machine for lim_kernels::cuda::Cuda {
    fn free_memory(&self) -> Result<Option<u64>> {
        Ok(Some(self.memory()?.0 as u64))
    }
}
