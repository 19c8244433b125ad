//! Matrix products of prefill: a block of weight rows is widened to float32 in a thread's scratch, then multiplied by
//! the library.

use std::ops::Range;

use super::buffer::{Buffer, Parts};
use super::gemv::Write;
use super::simd::{Isa, Widen};
use super::store::Part;

/// `out[m][o] (+)= x_m . w_o + b_o` for a block of rows `o` of one part.
pub(super) struct Gemm<'a> {
    /// `[count, inputs]`.
    pub(super) x: &'a [f32],
    pub(super) count: usize,
    pub(super) inputs: usize,
    pub(super) part: &'a Part,
    /// Rows within the part.
    pub(super) rows: Range<usize>,
    /// `[count, width]`; this kernel writes columns `part.rows.start + rows`.
    pub(super) out: Parts<'a, f32>,
    pub(super) width: usize,
    pub(super) write: Write,
    /// Room for the widened block.
    pub(super) scratch: &'a mut Buffer,
}

impl Gemm<'_> {
    pub(super) fn run(self, isa: Isa) {
        let Gemm { x, count, inputs, part, rows, out, width, write, scratch } = self;
        let row_bytes = inputs * part.dtype.bytes();
        let block = &mut scratch.f32s_mut()[..rows.len() * inputs];
        let from = &part.bytes()[rows.start * row_bytes..rows.end * row_bytes];
        isa.run(Widen { dtype: part.dtype, from, out: block });
        let column = part.rows.start + rows.start;
        assert!(x.len() >= count * inputs && column + rows.len() <= width);
        let to = out.pointer(column, (count - 1) * width + rows.len());
        // SAFETY: `x` is [count, inputs], `block` [rows, inputs], and `to` the first of [count, rows] with rows
        // `width` apart, all in bounds; no other task touches these columns.
        unsafe {
            gemm::gemm(
                count,
                rows.len(),
                inputs,
                to,
                1,
                width as isize,
                write == Write::Add,
                x.as_ptr(),
                1,
                inputs as isize,
                block.as_ptr(),
                inputs as isize,
                1,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        if let Some(bias) = &part.bias {
            for m in 0..count {
                // SAFETY: no other task writes these columns.
                let to = unsafe { out.slice(m * width + column, rows.len()) };
                to.iter_mut().zip(&bias[rows.clone()]).for_each(|(y, b)| *y += b);
            }
        }
    }
}
