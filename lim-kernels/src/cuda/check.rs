//! Refusals that several wrappers share, in the words of the CPU backend.

use super::CudaRows;
use crate::{Error, Result, Tensor};

pub(super) fn shape_error(
    op: &'static str,
    operand: &'static str,
    got: &[usize],
    expected: &[usize],
) -> Error {
    Error::Shape { op, operand, got: got.to_vec(), expected: expected.to_vec() }
}

/// Checks that `x` is `[>= rows, width]`.
pub(super) fn expect_rows(
    op: &'static str,
    operand: &'static str,
    x: &Tensor<CudaRows, 2>,
    [rows, width]: [usize; 2],
) -> Result<()> {
    let [got_rows, got_width] = x.shape();
    if got_rows >= rows && got_width == width {
        return Ok(());
    }
    Err(shape_error(op, operand, &x.shape(), &[rows, width]))
}

/// Extents on the device are 32-bit; a launcher refuses those that do not fit as out of range.
pub(super) fn int(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
