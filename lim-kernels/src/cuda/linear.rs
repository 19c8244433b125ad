//! Embedding and matrix products.

use super::Cuda;
use crate::{Embed, LinearAdd, Logits, NormGateUp, NormLinear, Result};

pub(super) fn embed(cuda: &mut Cuda, _op: Embed<'_, Cuda>) -> Result<()> {
    Err(cuda.not_built("embed"))
}

pub(super) fn norm_linear(cuda: &mut Cuda, _op: NormLinear<'_, Cuda>) -> Result<()> {
    Err(cuda.not_built("norm_linear"))
}

pub(super) fn linear_add(cuda: &mut Cuda, _op: LinearAdd<'_, Cuda>) -> Result<()> {
    Err(cuda.not_built("linear_add"))
}

pub(super) fn norm_gate_up(cuda: &mut Cuda, _op: NormGateUp<'_, Cuda>) -> Result<()> {
    Err(cuda.not_built("norm_gate_up"))
}

pub(super) fn logits(cuda: &mut Cuda, _op: Logits<'_, Cuda>) -> Result<()> {
    Err(cuda.not_built("logits"))
}
