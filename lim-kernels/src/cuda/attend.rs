//! See [`Attend`].

use super::Cuda;
use crate::{Attend, Result};

pub(super) fn attend(cuda: &mut Cuda, _op: Attend<'_, Cuda>) -> Result<()> {
    Err(cuda.not_built("attend"))
}
