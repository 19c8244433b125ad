//! See [`Sample`].

use super::Cuda;
use crate::{Result, Sample};

pub(super) fn sample(cuda: &mut Cuda, _op: Sample<'_, Cuda>) -> Result<()> {
    Err(cuda.not_built("sample"))
}
