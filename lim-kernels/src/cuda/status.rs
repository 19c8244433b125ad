//! Status codes of the launchers as errors.

use super::{Cuda, ffi};
use crate::{DType, Error, Result};

impl Cuda {
    /// Turns a launcher's status into a result; `op` and `dtype` say what was launched.
    pub(super) fn check(&self, op: &'static str, dtype: DType, status: i32) -> Result<()> {
        let refused = |what: &str| Error::Device { device: self.name(), reason: format!("{op}: {what}") };
        Err(match status {
            ffi::LIM_OK => return Ok(()),
            ffi::LIM_E_DTYPE => Error::DType { op, dtype },
            ffi::LIM_E_HEAD_DIM => refused("head_dim is not 32, 64, 80, 96, 128 or 256"),
            ffi::LIM_E_HEADS => refused("no kernel for these head counts"),
            ffi::LIM_E_SHAPE => refused("an extent is out of the kernel's range"),
            ffi::LIM_E_SCRATCH => refused("scratch is too small"),
            code => refused(&format!("CUDA runtime error {code}")),
        })
    }
}
