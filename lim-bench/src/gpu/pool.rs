//! One KV pool that all rows share, filled on the device.

use std::rc::Rc;

use lim_kernels::cuda::{Cuda, CudaBatch, CudaKv, CudaRope, CudaRows, CudaVector};
use lim_kernels::{Append, Backend, Capacity, DType, HostTensor, PageExtras, Result, RowsKind, Step, Tensor};

use super::{Noise, heads, layout, too_few_pages};

/// Tokens that one append brings in.
const CHUNK: usize = 1024;
/// Positions of the rotary tables, and tokens of the longest sequence.
pub(crate) const POSITIONS: usize = 131_072;

/// Pages full of keys and values (with Quest's bounds, and room for gates), and queries to ask them with.
///
/// Keys and values are what [`Append`] writes for random rows: every position's keys differ by their rotation, values
/// repeat after 1,024 tokens. Sequences take pages in random order.
pub struct Pool {
    pub(crate) kv: CudaKv,
    /// `[1024, 6144]`, normed and rotated.
    pub(crate) qkv: Tensor<CudaRows, 2>,
    rotary: Rc<Rotary>,
    order: Vec<u32>,
}

/// What [`Append`] needs besides rows and pages.
pub struct Rotary {
    rope: CudaRope,
    norm: CudaVector,
}

impl Pool {
    /// Makes and fills `pages` pages; a multiple of 64.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn new(cuda: &mut Cuda, pages: usize) -> Result<Rc<Self>> {
        let (layout, heads) = (layout()?, heads()?);
        let page = layout.page_size.tokens();
        if pages == 0 || !(pages * page).is_multiple_of(CHUNK) {
            return Err(too_few_pages((pages * page).next_multiple_of(CHUNK).max(CHUNK) / page, pages));
        }
        let mut noise = Noise::new(1);
        let mut order: Vec<u32> = (0..pages as u32).collect();
        for index in (1..pages).rev() {
            order.swap(index, noise.below(index + 1));
        }
        let mut kv = cuda.kv(layout, pages, PageExtras { bounds: true, gates: true })?;
        let mut qkv = cuda.rows(RowsKind::Activation, [CHUNK, heads.qkv_width()])?;
        cuda.write_rows(&noise.floats(qkv.len(), 1.7), &mut qkv)?;
        let rotary = Rc::new(Rotary::new(cuda)?);
        let capacity = Capacity { rows: CHUNK, seqs: 1, tokens: POSITIONS };
        let mut batch = cuda.batch(capacity, layout.page_size)?;
        for sequence in order.chunks(POSITIONS / page) {
            for len in (CHUNK..=sequence.len() * page).step_by(CHUNK) {
                let mut step = Step::default();
                step.push(&[0; CHUNK], len, &sequence[..len / page])?;
                cuda.upload(&step, &mut batch)?;
                cuda.append(rotary.append(&mut qkv, &batch, &mut kv))?;
            }
        }
        cuda.synchronize()?;
        Ok(Rc::new(Pool { kv, qkv, rotary, order }))
    }

    /// What [`super::append`] takes.
    pub fn rotary(&self) -> &Rc<Rotary> {
        &self.rotary
    }

    /// Pages of the pool.
    pub(crate) fn pages(&self) -> usize {
        self.order.len()
    }

    /// A decode step per copy: `seqs` sequences of `len` tokens each, every copy on pages of its own. Buffers and
    /// grids are made for `capacity` tokens.
    pub(crate) fn batches(
        &self,
        cuda: &mut Cuda,
        copies: usize,
        seqs: usize,
        len: usize,
        capacity: usize,
    ) -> Result<Vec<CudaBatch>> {
        let page_size = layout()?.page_size;
        let pages = page_size.pages_for(len);
        if copies * seqs * pages > self.order.len() {
            return Err(too_few_pages(copies * seqs * pages, self.order.len()));
        }
        let capacity = Capacity { rows: seqs, seqs, tokens: capacity };
        let of_copy = |copy: &[u32]| {
            let mut step = Step::with_capacity(capacity, page_size);
            copy.chunks_exact(pages).try_for_each(|table| step.push(&[0], len, table))?;
            let mut batch = cuda.batch(capacity, page_size)?;
            cuda.upload(&step, &mut batch)?;
            Ok(batch)
        };
        self.order.chunks_exact(seqs * pages).take(copies).map(of_copy).collect()
    }

    /// A prefill step: the last `rows` of `len` tokens of one sequence.
    pub(crate) fn chunk(&self, cuda: &mut Cuda, rows: usize, len: usize) -> Result<CudaBatch> {
        let page_size = layout()?.page_size;
        let pages = page_size.pages_for(len);
        let table = self.order.get(..pages).ok_or_else(|| too_few_pages(pages, self.order.len()))?;
        let mut step = Step::default();
        step.push(&vec![0; rows], len, table)?;
        let mut batch = cuda.batch(Capacity { rows, seqs: 1, tokens: len }, page_size)?;
        cuda.upload(&step, &mut batch)?;
        Ok(batch)
    }
}

impl Rotary {
    /// Plain rotary tables of base 1e6 and norm weights of one.
    pub(crate) fn new(cuda: &mut Cuda) -> Result<Self> {
        let half = heads()?.dim() / 2;
        let steps: Vec<f64> = (0..half).map(|i| 1e6f64.powf(-(i as f64) / half as f64)).collect();
        let angle = |index: usize| (index / half) as f64 * steps[index % half];
        let table = |f: fn(f64) -> f64| -> Vec<f32> {
            (0..POSITIONS * half).map(|index| f(angle(index)) as f32).collect()
        };
        let rope = cuda.rope(&table(f64::cos), &table(f64::sin), half)?;
        let ones = HostTensor {
            dtype: DType::F32,
            shape: [2 * half],
            bytes: 1f32.to_le_bytes().repeat(2 * half).into(),
        };
        Ok(Rotary { rope, norm: cuda.vector(&ones)? })
    }

    pub(crate) fn rope(&self) -> &CudaRope {
        &self.rope
    }

    pub(crate) fn append<'a>(
        &'a self,
        qkv: &'a mut Tensor<CudaRows, 2>,
        batch: &'a CudaBatch,
        kv: &'a mut CudaKv,
    ) -> Append<'a, Cuda> {
        Append { qkv, qk_norm: Some((&self.norm, &self.norm)), eps: 1e-6, rope: &self.rope, batch, kv }
    }
}
