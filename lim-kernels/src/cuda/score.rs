//! See [`Score`].

use super::Cuda;
use crate::{Result, Score};

pub(super) fn score(cuda: &mut Cuda, _op: Score<'_, Cuda>) -> Result<()> {
    Err(cuda.not_built("score"))
}
