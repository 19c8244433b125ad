//! See [`Pool`].

use super::Cuda;
use crate::{Error, Pool, Result};

/// Refuses: there is no kernel.
pub(super) fn pool(cuda: &mut Cuda, _: Pool<'_, Cuda>) -> Result<()> {
    Err(Error::Device { device: cuda.name(), reason: "it cannot pool softmax weights; the CPU can".into() })
}
