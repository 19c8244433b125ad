//! See [`Append`].

use super::Cuda;
use crate::{Append, Result};

pub(super) fn append(cuda: &mut Cuda, _op: Append<'_, Cuda>) -> Result<()> {
    Err(cuda.not_built("append"))
}
