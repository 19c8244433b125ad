//! QK-norm, rotary embedding, and the write of keys and values to their pages.
//!
//! A task owns one KV head with its query heads, for all rows: tasks never meet in memory, whatever the page tables
//! say.

use super::Cpu;
use super::buffer::Parts;
use super::simd::{Elem, Kernel, Simd, with_elem};
use super::store::{Batch, Kv, Rope, expect_rows, shape_error};
use crate::{Append, DType, Error, KvLayout, Result};

/// `x = rope(rms_norm(x) * weight)` for one head, in place; the norm only where there is a weight.
struct NormRope<'a> {
    x: &'a mut [f32],
    weight: Option<&'a [f32]>,
    eps: f32,
    /// Half a head each.
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for NormRope<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let NormRope { x, weight, eps, cos, sin } = self;
        let (n, half) = (x.len(), cos.len());
        assert!(n == 2 * half && sin.len() == half);
        if let Some(weight) = weight {
            assert!(weight.len() == n);
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
                x[i] = x[i] * scale * weight[i];
            }
        }
        let (low, high) = x.split_at_mut(half);
        for i in 0..half {
            let (a, b) = (low[i], high[i]);
            low[i] = a * cos[i] - b * sin[i];
            high[i] = b * cos[i] + a * sin[i];
        }
    }
}

/// Rounds float32 to stored elements.
pub(super) struct Narrow<'a> {
    pub(super) dtype: DType,
    pub(super) from: &'a [f32],
    pub(super) to: &'a mut [u8],
}

impl Kernel for Narrow<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        with_elem!(self.dtype, E => {
            for (&x, to) in self.from.iter().zip(self.to.chunks_exact_mut(E::BYTES)) {
                // SAFETY: the chunk holds one element.
                unsafe { E::put(to.as_mut_ptr(), x) }
            }
        })
    }
}

/// Elementwise minimum and maximum of one head's keys over a page's first `live` slots.
struct Bounds {
    layout: KvLayout,
    /// This head's key at slot 0; the next slot's lies a token further.
    keys: *const u8,
    live: usize,
    low: *mut u8,
    high: *mut u8,
}

impl Kernel for Bounds {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Bounds { layout, keys, live, low, high } = self;
        let dim = layout.heads.dim();
        with_elem!(layout.dtype, E => {
            let step = layout.token_width() * E::BYTES;
            let mut i = 0;
            while i < dim {
                let (mut least, mut most) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
                // A head whose size is no multiple of the vector ends with single elements.
                let lanes = if i + S::LANES <= dim { S::LANES } else { 1 };
                let mut slot = 0;
                while slot < live {
                    // SAFETY: the maker of this kernel vouches for `live` keys of `dim` elements.
                    unsafe {
                        let key = keys.add(slot * step + i * E::BYTES);
                        if lanes == 1 {
                            least[0] = least[0].min(E::get(key));
                            most[0] = most[0].max(E::get(key));
                        } else {
                            let k = E::load(s, key);
                            s.store(least.as_mut_ptr(), s.min(s.load(least.as_ptr()), k));
                            s.store(most.as_mut_ptr(), s.max(s.load(most.as_ptr()), k));
                        }
                    }
                    slot += 1;
                }
                for lane in 0..lanes {
                    // SAFETY: `i + lane < dim`. Storing is exact: the values were read from this type.
                    unsafe {
                        E::put(low.add((i + lane) * E::BYTES), least[lane]);
                        E::put(high.add((i + lane) * E::BYTES), most[lane]);
                    }
                }
                i += lanes;
            }
        })
    }
}

/// Heads of one layer as the tasks see them.
struct Layer<'a> {
    qkv: Parts<'a, f32>,
    norms: Option<(&'a [f32], &'a [f32])>,
    eps: f32,
    rope: &'a Rope,
    batch: &'a Batch,
    layout: KvLayout,
    data: Parts<'a, u8>,
    bounds: Option<Parts<'a, u8>>,
}

impl Cpu {
    pub(super) fn append_op(&mut self, op: Append<'_, Self>) -> Result<()> {
        const OP: &str = "append";
        let Append { qkv, qk_norm, eps, rope, batch, kv } = op;
        let layout = kv.layout;
        let heads = layout.heads;
        expect_rows(OP, "qkv", qkv, [batch.step.rows(), heads.qkv_width()])?;
        kv.expect(OP, heads, batch)?;
        if rope.half * 2 != heads.dim() {
            return Err(shape_error(OP, "rope", &[rope.half], &[heads.dim() / 2]));
        }
        if batch.step.max_len() > rope.positions() {
            let must = format!("at most the rope tables' {}", rope.positions());
            return Err(Error::Range {
                op: OP,
                what: "sequence length",
                got: batch.step.max_len() as u64,
                must,
            });
        }
        let norms = qk_norm.map(|(q, k)| (q.as_slice(), k.as_slice()));
        for (operand, norm) in norms.into_iter().flat_map(|(q, k)| [("query norm", q), ("key norm", k)]) {
            if norm.len() != heads.dim() {
                return Err(shape_error(OP, operand, &[norm.len()], &[heads.dim()]));
            }
        }
        let Kv { data, bounds, .. } = kv;
        let layer = Layer {
            qkv: Parts::new(qkv.data_mut().f32s_mut()),
            norms,
            eps,
            rope,
            batch,
            layout,
            data: Parts::new(data.bytes_mut()),
            bounds: bounds.as_mut().map(|b| Parts::new(b.bytes_mut())),
        };
        let isa = self.isa;
        self.pool.run(heads.kv(), |head, _| layer.append_head(isa, head));
        Ok(())
    }
}

impl Layer<'_> {
    fn append_head(&self, isa: super::simd::Isa, head: usize) {
        let Layer { qkv, norms, eps, rope, batch, layout, data, .. } = *self;
        let (heads, bytes) = (layout.heads, layout.dtype.bytes());
        let (dim, page_size) = (heads.dim(), layout.page_size.tokens());
        for seq in batch.step.iter().filter(|seq| seq.len > 0) {
            for (row, position) in seq.rows.clone().zip(seq.start()..) {
                let at = rope.half * position;
                let (cos, sin) = (&rope.cos[at..][..rope.half], &rope.sin[at..][..rope.half]);
                let part = |index: usize| {
                    // SAFETY: this task alone touches its query heads, its key and its value of any row.
                    unsafe { qkv.slice(row * heads.qkv_width() + index * dim, dim) }
                };
                for q in head * heads.group()..(head + 1) * heads.group() {
                    isa.run(NormRope { x: part(q), weight: norms.map(|n| n.0), eps, cos, sin });
                }
                let key = part(heads.query() + head);
                isa.run(NormRope { x: key, weight: norms.map(|n| n.1), eps, cos, sin });
                let page = seq.pages[position / page_size] as usize;
                let key_at = layout.key_offset(page, position % page_size) + head * dim;
                let value_at = key_at + layout.value_offset();
                for (from, at) in [(&*key, key_at), (&*part(heads.query() + heads.kv() + head), value_at)] {
                    // SAFETY: this task alone touches its head of any page.
                    let to = unsafe { data.slice(at * bytes, dim * bytes) };
                    isa.run(Narrow { dtype: layout.dtype, from, to });
                }
            }
            self.bound_head(isa, head, &seq);
        }
    }

    /// Bounds of the pages that the sequence's rows went to, from all their live slots: a page may hold keys of a
    /// sequence that was cut back, so what the bounds were before does not count.
    fn bound_head(&self, isa: super::simd::Isa, head: usize, seq: &crate::SeqStep<'_>) {
        let Layer { layout, data, bounds: Some(bounds), .. } = *self else { return };
        let (bytes, dim) = (layout.dtype.bytes(), layout.heads.dim());
        let page_size = layout.page_size.tokens();
        for index in seq.start() / page_size..=(seq.len - 1) / page_size {
            let page = seq.pages[index] as usize;
            let live = (seq.len - index * page_size).min(page_size);
            let (width, at) = (layout.token_width(), layout.key_offset(page, 0) + head * dim);
            let part = |which| bounds.pointer(((page * 2 + which) * width + head * dim) * bytes, dim * bytes);
            // Pointers, because the span of keys holds other heads' keys too, which other tasks write; only this
            // head's are read.
            let keys = data.pointer(at * bytes, ((live - 1) * width + dim) * bytes);
            isa.run(Bounds { layout, keys, live, low: part(0), high: part(1) });
        }
    }
}
