//! Embedding, RMSNorm, linear layers and SwiGLU.

use super::Cpu;
use super::buffer::{Buffer, Parts};
use super::gemm::{self, Gemm, Pack, Padded};
use super::gemv::{Gemv, Write};
use super::pool::Pool;
use super::simd::{Isa, Kernel, Simd, Widen};
use super::store::{Linear, expect_rows, shape_error};
use crate::{Embed, Error, LinearAdd, Logits, NormGateUp, NormLinear, Result};

/// Up to this many rows of a prefill every weight row meets all activation rows while it is in the cache, as in decode;
/// beyond, blocks are widened and multiplied as matrices.
const GEMV_ROWS: usize = 8;
/// Floats between the rows of a few activations.
const ROW_GAP: usize = 16;
/// Weight rows of one task.
const TASK_ROWS: usize = 64;
/// Weight rows of one task of a matrix product.
const BLOCK_ROWS: usize = 48;
/// Elements of SwiGLU of one task.
const SWIGLU_TASK: usize = 16 * 1024;

/// `out = x / sqrt(mean(x^2) + eps) * weight` for one row.
pub(super) struct RmsNorm<'a> {
    pub(super) x: &'a [f32],
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
    pub(super) out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let RmsNorm { x, weight, eps, out } = self;
        let n = x.len();
        assert!(weight.len() == n && out.len() == n);
        let mut squares = s.splat(0.0);
        let mut i = 0;
        while i + S::LANES <= n {
            // SAFETY: `i + LANES <= n`.
            let v = unsafe { s.load(x.as_ptr().add(i)) };
            squares = s.fma(v, v, squares);
            i += S::LANES;
        }
        let mut sum = s.sum(squares);
        for &v in &x[i..] {
            sum += v * v;
        }
        let scale = 1.0 / (sum / n as f32 + eps).sqrt();
        for i in 0..n {
            out[i] = x[i] * scale * weight[i];
        }
    }
}

/// `out = gate / (1 + e^-gate) * up` for one row.
struct SwiGlu<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for SwiGlu<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SwiGlu { gate, up, out } = self;
        let n = out.len();
        assert!(gate.len() == n && up.len() == n);
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        let mut i = 0;
        while i + S::LANES <= n {
            // SAFETY: `i + LANES <= n`, the length of all three.
            unsafe {
                let g = s.load(gate.as_ptr().add(i));
                let silu = s.div(g, s.add(one, s.exp(s.sub(zero, g))));
                s.store(out.as_mut_ptr().add(i), s.mul(silu, s.load(up.as_ptr().add(i))));
            }
            i += S::LANES;
        }
        while i < n {
            out[i] = gate[i] / (1.0 + (-gate[i]).exp()) * up[i];
            i += 1;
        }
    }
}

/// The parts of [`Cpu`] that a product needs.
struct Tools<'a> {
    pool: &'a mut Pool,
    isa: Isa,
    packed: &'a mut Buffer,
    scratch: &'a mut [Buffer],
}

/// `out[m] (+)= x_m W^T + b` for `count` rows of `x`, split over weight rows.
struct Product<'a> {
    x: &'a [f32],
    count: usize,
    linear: &'a Linear,
    out: &'a mut [f32],
    write: Write,
    /// Each row is to come out bit for bit as it would alone: rows of a decode step belong to different sequences,
    /// and none may feel which others run beside it.
    alone: bool,
}

fn product(tools: Tools<'_>, op: Product<'_>) -> Result<()> {
    let Tools { pool, isa, packed, scratch } = tools;
    let Product { x, count, linear, out, write, alone } = op;
    let (inputs, width) = (linear.inputs, linear.outputs);
    let few = alone || count <= GEMV_ROWS;
    let block = if few { TASK_ROWS } else { BLOCK_ROWS };
    let tasks = linear.parts.iter().map(|p| p.rows.len().div_ceil(block)).sum();
    let out = Parts::new(out);
    if few {
        // Rows a power of two apart would meet in few sets of the first cache.
        let stride = inputs + ROW_GAP;
        packed.reserve(count * stride)?;
        let rows = packed.f32s_mut();
        for (to, from) in rows.chunks_exact_mut(stride).zip(x.chunks_exact(inputs)).take(count) {
            to[..inputs].copy_from_slice(from);
        }
        let x = &*rows;
        pool.run(tasks, |task, _| {
            let (part, rows) = piece(linear, block, task);
            isa.run(Gemv { x, count, stride, inputs, part, rows, out, width, write });
        });
        return Ok(());
    }
    for buffer in &mut *scratch {
        buffer.reserve(gemm::scratch(block))?;
    }
    let (padded, panel_rows) = isa.run(Padded(count));
    packed.reserve(padded * inputs)?;
    let panels = Parts::new(packed.f32s_mut());
    pool.run(count.div_ceil(panel_rows), |panel, _| {
        isa.run(Pack { x, count, inputs, panel, out: panels });
    });
    let (x, scratch) = (packed.f32s(), Parts::new(scratch));
    pool.run(tasks, |task, thread| {
        let (part, rows) = piece(linear, block, task);
        // SAFETY: a thread uses its own scratch.
        let scratch = unsafe { scratch.slice(thread, 1)[0].f32s_mut() };
        isa.run(Gemm { x, count, inputs, part, rows, out, width, write, scratch });
    });
    Ok(())
}

/// Part and rows of one task.
fn piece(linear: &Linear, block: usize, mut task: usize) -> (&super::store::Part, std::ops::Range<usize>) {
    for part in &linear.parts {
        let tasks = part.rows.len().div_ceil(block);
        if task < tasks {
            return (part, task * block..((task + 1) * block).min(part.rows.len()));
        }
        task -= tasks;
    }
    unreachable!("tasks are counted from the same parts")
}

/// Borrows [`Tools`] field by field, beside the fields that hold a product's operands.
macro_rules! tools {
    ($cpu:expr) => {
        Tools { pool: &mut $cpu.pool, isa: $cpu.isa, packed: &mut $cpu.packed, scratch: &mut $cpu.scratch }
    };
}

impl Cpu {
    /// Normed rows into `self.normed`; `row(i)` is the row of `x` to take.
    fn norm_rows(
        &mut self,
        x: &[f32],
        norm: (&[f32], f32),
        count: usize,
        row: impl Fn(usize) -> usize + Sync,
    ) -> Result<()> {
        let (weight, eps) = norm;
        let width = weight.len();
        self.normed.reserve(count * width)?;
        let out = Parts::new(self.normed.f32s_mut());
        let isa = self.isa;
        // One task a few rows: decode's single row is not worth a fork.
        const TASK: usize = 8;
        self.pool.run(count.div_ceil(TASK), |task, _| {
            for i in task * TASK..((task + 1) * TASK).min(count) {
                // SAFETY: task `i / TASK` alone writes row i.
                let out = unsafe { out.slice(i * width, width) };
                isa.run(RmsNorm { x: &x[row(i) * width..][..width], weight, eps, out });
            }
        });
        Ok(())
    }

    pub(super) fn embed_op(&mut self, op: Embed<'_, Self>) -> Result<()> {
        const OP: &str = "embed";
        let Embed { table, batch, x } = op;
        let (tokens, width) = (batch.step.tokens(), table.inputs);
        expect_rows(OP, "x", x, [tokens.len(), width])?;
        for (&token, out) in tokens.iter().zip(x.data_mut().f32s_mut().chunks_exact_mut(width)) {
            let token = token as usize;
            let Some(part) = table.parts.iter().find(|p| p.rows.contains(&token)) else {
                let must = format!("below the vocabulary's {}", table.outputs);
                return Err(Error::Range { op: OP, what: "token id", got: token as u64, must });
            };
            let row_bytes = width * part.dtype.bytes();
            let from = &part.bytes()[(token - part.rows.start) * row_bytes..][..row_bytes];
            self.isa.run(Widen { dtype: part.dtype, from, out });
        }
        Ok(())
    }

    pub(super) fn norm_linear_op(&mut self, op: NormLinear<'_, Self>) -> Result<()> {
        const OP: &str = "norm_linear";
        let NormLinear { x, norm, eps, linear, batch, out } = op;
        let count = batch.step.rows();
        expect_norm(OP, norm, linear)?;
        expect_rows(OP, "x", x, [count, linear.inputs])?;
        expect_rows(OP, "out", out, [count, linear.outputs])?;
        self.norm_rows(x.data().f32s(), (norm, eps), count, |i| i)?;
        let (x, out) = (self.normed.f32s(), out.data_mut().f32s_mut());
        let alone = batch.step.is_decode();
        product(tools!(self), Product { x, count, linear, out, write: Write::Store, alone })
    }

    pub(super) fn linear_add_op(&mut self, op: LinearAdd<'_, Self>) -> Result<()> {
        const OP: &str = "linear_add";
        let LinearAdd { a, linear, batch, x } = op;
        let count = batch.step.rows();
        expect_rows(OP, "a", a, [count, linear.inputs])?;
        expect_rows(OP, "x", x, [count, linear.outputs])?;
        let (x, out) = (a.data().f32s(), x.data_mut().f32s_mut());
        let alone = batch.step.is_decode();
        product(tools!(self), Product { x, count, linear, out, write: Write::Add, alone })
    }

    pub(super) fn norm_gate_up_op(&mut self, op: NormGateUp<'_, Self>) -> Result<()> {
        const OP: &str = "norm_gate_up";
        let NormGateUp { x, norm, eps, gate_up, batch, out } = op;
        let (count, inner) = (batch.step.rows(), gate_up.outputs / 2);
        expect_norm(OP, norm, gate_up)?;
        if inner * 2 != gate_up.outputs {
            return Err(shape_error(OP, "gate_up", &[gate_up.outputs], &[inner * 2]));
        }
        expect_rows(OP, "x", x, [count, gate_up.inputs])?;
        expect_rows(OP, "out", out, [count, inner])?;
        self.norm_rows(x.data().f32s(), (norm, eps), count, |i| i)?;
        self.wide.reserve(count * gate_up.outputs)?;
        let both = Product {
            x: self.normed.f32s(),
            count,
            linear: gate_up,
            out: self.wide.f32s_mut(),
            write: Write::Store,
            alone: batch.step.is_decode(),
        };
        product(tools!(self), both)?;
        let (isa, wide) = (self.isa, self.wide.f32s());
        let out = Parts::new(out.data_mut().f32s_mut());
        let rows_each = (SWIGLU_TASK / inner).max(1);
        self.pool.run(count.div_ceil(rows_each), |task, _| {
            for i in task * rows_each..((task + 1) * rows_each).min(count) {
                let (gate, up) = wide[i * 2 * inner..][..2 * inner].split_at(inner);
                // SAFETY: this task alone writes row i.
                let out = unsafe { out.slice(i * inner, inner) };
                isa.run(SwiGlu { gate, up, out });
            }
        });
        Ok(())
    }

    pub(super) fn logits_op(&mut self, op: Logits<'_, Self>) -> Result<()> {
        const OP: &str = "logits";
        let Logits { x, norm, eps, head, rows, out } = op;
        expect_norm(OP, norm, head)?;
        let most = rows.iter().max().map_or(0, |&r| r as usize + 1);
        expect_rows(OP, "x", x, [most, head.inputs])?;
        expect_rows(OP, "out", out, [rows.len(), head.outputs])?;
        self.norm_rows(x.data().f32s(), (norm, eps), rows.len(), |i| rows[i] as usize)?;
        let (x, out) = (self.normed.f32s(), out.data_mut().f32s_mut());
        let all = Product { x, count: rows.len(), linear: head, out, write: Write::Store, alone: true };
        product(tools!(self), all)
    }
}

fn expect_norm(op: &'static str, norm: &[f32], linear: &Linear) -> Result<()> {
    if norm.len() == linear.inputs {
        return Ok(());
    }
    Err(shape_error(op, "norm", &[norm.len()], &[linear.inputs]))
}
