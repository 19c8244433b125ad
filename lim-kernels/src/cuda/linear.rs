//! Embedding and matrix products. Up to 8 rows, often 16, run in one kernel with its epilogue (`linear.cu`); more rows run
//! through cublasLt with the row-wise kernels of `rows.cu` around it.

use std::ffi::c_void;
use std::ptr;

use super::context::{Last, Scratch};
use super::gemm::{Operands, Product};
use super::kv::dtype_code;
use super::{Cuda, CudaLinear, CudaRows, CudaVector, ffi};
use crate::{DType, Embed, Error, LinearAdd, Logits, NormGateUp, NormLinear, Result, Tensor};

/// Rows that one kernel can take.
const MOST_ROWS: usize = ffi::LIM_LINEAR_MAX_ROWS as usize;
/// Rows that it takes whatever the product.
const FUSED_ROWS: usize = 8;
/// Columns of x that `linear_stream.cu` holds in registers.
const HELD_COLUMNS: usize = 4096;

/// What the sums of a product become.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Epilogue {
    Store,
    StoreF32,
    AddF32,
    SwiGlu,
}

impl Epilogue {
    fn code(self) -> i32 {
        match self {
            Epilogue::Store => ffi::LIM_STORE,
            Epilogue::StoreF32 => ffi::LIM_STORE_F32,
            Epilogue::AddF32 => ffi::LIM_ADD_F32,
            Epilogue::SwiGlu => ffi::LIM_SWIGLU,
        }
    }
}

/// One product: rows of x, an optional norm, the weight, and where the sums go.
struct Skinny<'a> {
    op: &'static str,
    x: *const c_void,
    /// Rows of x to read; null: the first `rows`.
    row_ids: *const i32,
    norm: Option<(&'a CudaVector, f32)>,
    linear: &'a CudaLinear,
    y: *mut c_void,
    rows: usize,
    epilogue: Epilogue,
}

impl Skinny<'_> {
    /// Bytes from one row of x, and of y, to the next, the norm being done.
    fn row_bytes(&self) -> (usize, usize) {
        let CudaLinear { shape: [out, input], dtype, .. } = *self.linear;
        let y = match self.epilogue {
            Epilogue::Store => out * dtype.bytes(),
            Epilogue::StoreF32 | Epilogue::AddF32 => out * 4,
            Epilogue::SwiGlu => out / 2 * dtype.bytes(),
        };
        (input * dtype.bytes(), y)
    }
}

pub(super) fn embed(cuda: &mut Cuda, op: Embed<'_, Cuda>) -> Result<()> {
    let Embed { table, batch, x } = op;
    let [vocabulary, width] = table.shape;
    let rows = batch.rows();
    expect("embed", "x", x, [rows, width], DType::F32)?;
    if batch.largest_token() >= vocabulary {
        let (got, must) = (batch.largest_token() as u64, format!("below the vocabulary's {vocabulary}"));
        return Err(Error::Range { op: "embed", what: "token id", got, must });
    }
    let args = ffi::lim_embed_args {
        tokens: batch.raw().tokens,
        table: table.weight.ptr().cast(),
        x: x.data_mut().data.ptr().cast(),
        rows: rows as i32,
        width: width as i32,
        vocabulary: vocabulary as i32,
        dtype: dtype_code(table.dtype),
    };
    let stream = cuda.launch_stream()?;
    // SAFETY: device memory of the checked extents, alive in `op`; the kernel reads no row past the vocabulary.
    let status = unsafe { ffi::lim_embed(&args, stream) };
    cuda.note_next_waits();
    cuda.check("embed", table.dtype, status)
}

pub(super) fn norm_linear(cuda: &mut Cuda, op: NormLinear<'_, Cuda>) -> Result<()> {
    let NormLinear { x, norm, eps, linear, batch, out } = op;
    let [width, input] = linear.shape;
    let rows = batch.rows();
    expect("norm_linear", "x", x, [rows, input], DType::F32)?;
    expect_norm("norm_linear", norm, input)?;
    expect("norm_linear", "out", out, [rows, width], linear.dtype)?;
    let (x, y) = (x.data().data.ptr().cast_const().cast(), out.data_mut().data.ptr().cast());
    let (norm, epilogue, row_ids) = (Some((norm, eps)), Epilogue::Store, ptr::null());
    run(cuda, Skinny { op: "norm_linear", x, row_ids, norm, linear, y, rows, epilogue })
}

pub(super) fn linear_add(cuda: &mut Cuda, op: LinearAdd<'_, Cuda>) -> Result<()> {
    let LinearAdd { a, linear, batch, x } = op;
    let [width, input] = linear.shape;
    let rows = batch.rows();
    expect("linear_add", "a", a, [rows, input], linear.dtype)?;
    expect("linear_add", "x", x, [rows, width], DType::F32)?;
    let (x, y) = (a.data().data.ptr().cast_const().cast(), x.data_mut().data.ptr().cast());
    let (norm, epilogue, row_ids) = (None, Epilogue::AddF32, ptr::null());
    run(cuda, Skinny { op: "linear_add", x, row_ids, norm, linear, y, rows, epilogue })
}

pub(super) fn norm_gate_up(cuda: &mut Cuda, op: NormGateUp<'_, Cuda>) -> Result<()> {
    let NormGateUp { x, norm, eps, gate_up, batch, out } = op;
    let [two, input] = gate_up.shape;
    let rows = batch.rows();
    if !two.is_multiple_of(2) {
        let must = "even: gate and up rows stacked".into();
        return Err(Error::Range { op: "norm_gate_up", what: "rows of gate_up", got: two as u64, must });
    }
    expect("norm_gate_up", "x", x, [rows, input], DType::F32)?;
    expect_norm("norm_gate_up", norm, input)?;
    expect("norm_gate_up", "out", out, [rows, two / 2], gate_up.dtype)?;
    let (x, y) = (x.data().data.ptr().cast_const().cast(), out.data_mut().data.ptr().cast());
    let (norm, epilogue, row_ids) = (Some((norm, eps)), Epilogue::SwiGlu, ptr::null());
    run(cuda, Skinny { op: "norm_gate_up", x, row_ids, norm, linear: gate_up, y, rows, epilogue })
}

pub(super) fn logits(cuda: &mut Cuda, op: Logits<'_, Cuda>) -> Result<()> {
    let Logits { x, norm, eps, head, rows, out } = op;
    let [vocab, hidden] = head.shape;
    let [have, width] = x.shape();
    let last = rows.iter().max().map_or(0, |&r| r as usize + 1);
    if have < last || width != hidden || x.data().dtype != DType::F32 {
        return Err(shape("logits", "x", vec![have, width], vec![last, hidden]));
    }
    expect_norm("logits", norm, hidden)?;
    expect("logits", "out", out, [rows.len(), vocab], DType::F32)?;
    if rows.is_empty() {
        return Ok(());
    }
    // A decode step reads the rows in order, and so needs no list on the device.
    let in_order = rows.iter().enumerate().all(|(i, &r)| r as usize == i);
    let row_ids = if in_order { ptr::null() } else { cuda.row_ids(rows)? };
    let (x, y) = (x.data().data.ptr().cast_const().cast(), out.data_mut().data.ptr().cast());
    let (norm, epilogue) = (Some((norm, eps)), Epilogue::StoreF32);
    run(cuda, Skinny { op: "logits", x, row_ids, norm, linear: head, y, rows: rows.len(), epilogue })
}

impl Cuda {
    /// The rows on the device, until the next call.
    fn row_ids(&mut self, rows: &[u32]) -> Result<*const i32> {
        let ids: Vec<i32> = rows.iter().map(|&r| r as i32).collect();
        let mut buffer = match self.row_list.take() {
            Some(buffer) if buffer.len() >= ids.len() => buffer,
            _ => self.zeros(ids.len().next_power_of_two(), "row numbers")?,
        };
        self.send(&ids, &mut buffer, 0)?;
        Ok(self.row_list.insert(buffer).ptr())
    }
}

fn run(cuda: &mut Cuda, s: Skinny<'_>) -> Result<()> {
    if cuda.is_batch_invariant() {
        in_groups(cuda, s)
    } else if s.rows <= FUSED_ROWS || s.rows <= MOST_ROWS && streams(cuda, &s)? {
        fused(cuda, s)
    } else {
        around_gemm(cuda, s)
    }
}

/// Whether `linear_stream.cu` holds the product's x in registers. Then it is no slower than cublasLt and the kernels
/// around it up to its last row. A longer x it takes in passes, and cublasLt is faster (H200, 16 rows of Qwen3-8B at
/// 32,768 tokens with LessIsMore, ms a step: 7.99 with the MLP's second product in passes, 7.82 with cublasLt's).
fn streams(cuda: &Cuda, s: &Skinny<'_>) -> Result<bool> {
    Ok(s.linear.shape[1] <= HELD_COLUMNS && s.linear.dtype != DType::F32 && cuda.capability()?.0 >= 9)
}

/// One kernel; the norm is a kernel of its own from two rows on, where every block repeating it costs more.
fn fused(cuda: &mut Cuda, s: Skinny<'_>) -> Result<()> {
    let s = if s.rows > 1 { normed(cuda, s)? } else { s };
    product(cuda, &s, 0)
}

/// The same kernel for any number of rows, as many as it takes at a time, each row computed as among that many.
fn in_groups(cuda: &mut Cuda, s: Skinny<'_>) -> Result<()> {
    let s = normed(cuda, s)?;
    let (x_row, y_row) = s.row_bytes();
    for first in (0..s.rows).step_by(MOST_ROWS) {
        let x = s.x.cast::<u8>().wrapping_add(first * x_row).cast();
        let y = s.y.cast::<u8>().wrapping_add(first * y_row).cast();
        let rows = MOST_ROWS.min(s.rows - first);
        product(cuda, &Skinny { x, y, rows, ..s }, MOST_ROWS)?;
    }
    Ok(())
}

/// The product of rows that have their norm, if any, behind them.
fn normed<'a>(cuda: &mut Cuda, s: Skinny<'a>) -> Result<Skinny<'a>> {
    if s.norm.is_none() {
        return Ok(s);
    }
    let normed = cuda.scratch(Scratch::Common, s.rows * s.linear.shape[1] * s.linear.dtype.bytes())?;
    normalise(cuda, &s, normed.cast())?;
    Ok(Skinny { x: normed.cast_const().cast(), norm: None, row_ids: ptr::null(), ..s })
}

/// One launch; sums are added in the order for `plan_rows` rows.
fn product(cuda: &mut Cuda, s: &Skinny<'_>, plan_rows: usize) -> Result<()> {
    let CudaLinear { weight, bias, shape: [out, input], dtype } = s.linear;
    let halves = if s.epilogue == Epilogue::SwiGlu { 2 } else { 1 };
    let last = cuda.last();
    // Append, attention and selection read more than weights before they wait. Behind what adds to the residual stream come
    // products, or, where attention left scores, the beginning of a selection.
    let late = s.epilogue != Epilogue::AddF32 || last == Last::Scored;
    let spare = match last {
        _ if s.rows > 1 => 0, // more rows take registers that blocks beside this one would need
        Last::Attend => ffi::LIM_ATTEND_ROOM,
        Last::Scored => ffi::LIM_SELECT_ROOM,
        Last::Append | Last::Beside | Last::Other => 0,
    };
    let args = ffi::lim_linear_args {
        x: s.x,
        row_ids: s.row_ids,
        norm: s.norm.map_or(ptr::null(), |(norm, _)| norm.data.ptr().cast_const()),
        w: weight.ptr().cast(),
        bias: bias.as_ref().map_or(ptr::null(), |b| b.ptr().cast_const()),
        y: s.y,
        eps: s.norm.map_or(0.0, |(_, eps)| eps),
        rows: s.rows as i32,
        plan_rows: plan_rows as i32,
        in_: *input as i32,
        out: (out / halves) as i32,
        dtype: dtype_code(*dtype),
        epilogue: s.epilogue.code(),
        late: i32::from(late),
        spare,
    };
    let stream = cuda.launch_stream()?;
    // SAFETY: device memory of the extents that the verb checked, alive in its operands or in the scratch.
    let status = unsafe { ffi::lim_linear(&args, stream) };
    if !late {
        cuda.note_next_waits();
    }
    if spare == ffi::LIM_SELECT_ROOM {
        cuda.note_room();
    }
    cuda.check(s.op, *dtype, status)
}

/// Norm, product and epilogue one after the other.
fn around_gemm(cuda: &mut Cuda, s: Skinny<'_>) -> Result<()> {
    let CudaLinear { weight, bias, shape: [out, input], dtype } = s.linear;
    let (rows, n, k, dtype) = (s.rows, *out, *input, *dtype);
    let normed_bytes = if s.norm.is_some() { (rows * k * dtype.bytes()).next_multiple_of(256) } else { 0 };
    let both_bytes = if s.epilogue == Epilogue::SwiGlu { rows * n * dtype.bytes() } else { 0 };
    let scratch = cuda.scratch(Scratch::Common, normed_bytes + both_bytes)?;
    let both: *mut c_void = scratch.wrapping_add(normed_bytes).cast();
    let mut a = s.x;
    if s.norm.is_some() {
        normalise(cuda, &s, scratch.cast())?;
        a = scratch.cast_const().cast();
    }
    let (out, y) = match s.epilogue {
        Epilogue::Store => (dtype, s.y),
        Epilogue::SwiGlu => (dtype, both),
        Epilogue::StoreF32 | Epilogue::AddF32 => (DType::F32, s.y),
    };
    let add = s.epilogue == Epilogue::AddF32;
    cuda.product(
        Product { rows, n, k, dtype, out, add },
        &Operands { a, w: weight.ptr().cast_const().cast(), out: y },
    )?;
    if let Some(bias) = bias {
        let args = ffi::lim_bias_args {
            y,
            bias: bias.ptr(),
            rows: rows as i32,
            width: n as i32,
            dtype: dtype_code(out),
        };
        let stream = cuda.launch_stream()?;
        // SAFETY: `y` is `[rows][n]` of type `out`, the bias `[n]`.
        let status = unsafe { ffi::lim_bias(&args, stream) };
        cuda.check(s.op, dtype, status)?;
    }
    if s.epilogue == Epilogue::SwiGlu {
        let args = ffi::lim_swiglu_args {
            gate_up: both,
            y: s.y,
            rows: rows as i32,
            width: (n / 2) as i32,
            dtype: dtype_code(dtype),
        };
        let stream = cuda.launch_stream()?;
        // SAFETY: `both` is `[rows][n]`, `y` is `[rows][n / 2]`, as the verb checked.
        let status = unsafe { ffi::lim_swiglu(&args, stream) };
        cuda.note_next_waits();
        cuda.check(s.op, dtype, status)?;
    }
    Ok(())
}

/// `y[rows][in] = rms_norm(x[row_ids])` in the weight's type.
fn normalise(cuda: &mut Cuda, s: &Skinny<'_>, y: *mut c_void) -> Result<()> {
    let Some((norm, eps)) = s.norm else { return Ok(()) };
    let dtype = s.linear.dtype;
    let args = ffi::lim_rms_norm_args {
        x: s.x.cast(),
        row_ids: s.row_ids,
        norm: norm.data.ptr(),
        y,
        eps,
        rows: s.rows as i32,
        width: s.linear.shape[1] as i32,
        dtype: dtype_code(dtype),
    };
    let stream = cuda.launch_stream()?;
    // SAFETY: `x` was checked by the verb; `y` is scratch of `rows * in` elements.
    let status = unsafe { ffi::lim_rms_norm(&args, stream) };
    cuda.note_next_waits();
    cuda.check(s.op, dtype, status)
}

/// Whether `tensor` has at least these rows, this width and this type.
fn expect(
    op: &'static str,
    operand: &'static str,
    tensor: &Tensor<CudaRows, 2>,
    [rows, width]: [usize; 2],
    dtype: DType,
) -> Result<()> {
    let [have, is] = tensor.shape();
    if have < rows || is != width {
        return Err(shape(op, operand, vec![have, is], vec![rows, width]));
    }
    if tensor.data().dtype != dtype {
        return Err(Error::DType { op, dtype: tensor.data().dtype });
    }
    Ok(())
}

fn expect_norm(op: &'static str, norm: &CudaVector, width: usize) -> Result<()> {
    if norm.data.len() == width {
        return Ok(());
    }
    Err(shape(op, "norm", vec![norm.data.len()], vec![width]))
}

fn shape(op: &'static str, operand: &'static str, got: Vec<usize>, expected: Vec<usize>) -> Error {
    Error::Shape { op, operand, got, expected }
}
