//! Dot products of a few float32 rows with many stored rows, each stored row read once: decode's linear layers and
//! decode attention's scores.

use super::buffer::Parts;
use super::simd::{Elem, Kernel, Simd, with_elem};
use super::store::Part;

/// Stored rows at a time: enough independent sums to hide the latency of fma, and as many memory streams.
pub(super) const ROWS: usize = 4;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Groups of rows that meet one tile of activations after another.
const BLOCK: usize = 4;
/// Distance in bytes at which weights are fetched ahead.
const AHEAD: usize = 4096;

/// `out[m][r] = x_m . w_r` over `k` elements. A sum's order depends on `k` and `S` only, neither on `M` nor on which
/// rows are neighbours, so a row's result is the same in any batch. `next` are rows to fetch ahead meanwhile.
///
/// # Safety
/// `x + m * stride` must hold `k` float32 for every `m < M`, each `w[r]` must hold `k` elements.
#[inline(always)]
pub(super) unsafe fn dots<S: Simd, E: Elem, const M: usize>(
    s: S,
    x: *const f32,
    stride: usize,
    w: [*const u8; ROWS],
    next: [*const u8; ROWS],
    k: usize,
) -> [[f32; ROWS]; M] {
    let mut acc = [[s.splat(0.0); ROWS]; M];
    let mut i = 0;
    while i + S::LANES <= k {
        let mut row = [s.splat(0.0); ROWS];
        let mut r = 0;
        while r < ROWS {
            // SAFETY: `i + LANES <= k`.
            row[r] = unsafe { E::load(s, w[r].add(i * E::BYTES)) };
            if (i * E::BYTES).is_multiple_of(LINE) {
                s.prefetch(next[r].wrapping_add(i * E::BYTES));
            }
            r += 1;
        }
        let mut m = 0;
        while m < M {
            // SAFETY: as above.
            let xm = unsafe { s.load(x.add(m * stride + i)) };
            let mut r = 0;
            while r < ROWS {
                acc[m][r] = s.fma(xm, row[r], acc[m][r]);
                r += 1;
            }
            m += 1;
        }
        i += S::LANES;
    }
    let mut out = [[0.0; ROWS]; M];
    let mut m = 0;
    while m < M {
        out[m] = s.sum4(acc[m]);
        let mut t = i;
        while t < k {
            let mut r = 0;
            while r < ROWS {
                // SAFETY: `t < k`.
                out[m][r] += unsafe { *x.add(m * stride + t) * E::get(w[r].add(t * E::BYTES)) };
                r += 1;
            }
            t += 1;
        }
        m += 1;
    }
    out
}

/// Calls `$dots::<M>` with the largest `M <= min(left, TILE)` and copies its rows to a buffer of `TILE` rows.
macro_rules! tile {
    ($s:expr, $left:expr, $e:ident, ($($arg:expr),*), $out:ident) => {{
        let m = $left.min(S::TILE);
        let mut $out = [[0.0f32; ROWS]; 4];
        // SAFETY: the caller of this macro vouches for the rows.
        unsafe {
            match m {
                1 => $out[..1].copy_from_slice(&dots::<S, $e, 1>($s, $($arg),*)),
                2 => $out[..2].copy_from_slice(&dots::<S, $e, 2>($s, $($arg),*)),
                3 => $out[..3].copy_from_slice(&dots::<S, $e, 3>($s, $($arg),*)),
                _ => $out[..4].copy_from_slice(&dots::<S, $e, 4>($s, $($arg),*)),
            }
        }
        (m, $out)
    }};
}
pub(super) use tile;

/// What happens to an output that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Store,
    Add,
}

/// `out[m][o] (+)= x_m . w_o + b_o` for the rows `o` of one part.
pub(super) struct Gemv<'a> {
    /// `count` rows of `inputs`, `stride` apart.
    pub(super) x: &'a [f32],
    pub(super) count: usize,
    pub(super) stride: usize,
    pub(super) inputs: usize,
    pub(super) part: &'a Part,
    /// Rows within the part.
    pub(super) rows: std::ops::Range<usize>,
    /// `[count, width]`; this kernel writes columns `part.rows.start + rows`.
    pub(super) out: Parts<'a, f32>,
    pub(super) width: usize,
    pub(super) write: Write,
}

impl Kernel for Gemv<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        with_elem!(self.part.dtype, E => self.typed::<S, E>(s))
    }
}

impl Gemv<'_> {
    #[inline(always)]
    fn typed<S: Simd, E: Elem>(self, s: S) {
        let Gemv { x, count, stride: x_stride, inputs, part, rows, out, width, write } = self;
        let row_bytes = inputs * E::BYTES;
        let bytes = part.bytes();
        assert!(x_stride >= inputs && x.len() >= count * x_stride && bytes.len() >= rows.end * row_bytes);
        // Four streams of neighbouring rows, then what is left.
        let (stream, rest) = (rows.len() / ROWS, rows.len() % ROWS);
        let groups = stream + usize::from(rest > 0);
        // The activations of a tile stay in the first cache for a block of groups, whose weights the second holds.
        let mut block = 0;
        while block < groups {
            let end = (block + BLOCK).min(groups);
            let mut m = 0;
            while m < count {
                let at = x[m * x_stride..].as_ptr();
                let mut done = 0;
                let mut group = block;
                while group < end {
                    let (first, apart, live) =
                        if group < stream { (group, stream, ROWS) } else { (ROWS * stream, 1, rest) };
                    let mut w = [bytes.as_ptr(); ROWS];
                    let mut next = w;
                    let mut r = 0;
                    while r < ROWS {
                        // The last group repeats its last row; the repeats are not stored.
                        let row = rows.start + first + r.min(live - 1) * apart;
                        // SAFETY: `row < rows.end`, and the part holds that many rows.
                        w[r] = unsafe { bytes.as_ptr().add(row * row_bytes) };
                        next[r] = w[r].wrapping_add(AHEAD);
                        r += 1;
                    }
                    let (tile_rows, sums) = tile!(s, (count - m), E, (at, x_stride, w, next, inputs), sums);
                    let mut i = 0;
                    while i < tile_rows {
                        let mut r = 0;
                        while r < live {
                            let row = rows.start + first + r * apart;
                            // SAFETY: no other task writes these columns.
                            let to = unsafe { &mut out.slice((m + i) * width + part.rows.start + row, 1)[0] };
                            let bias = match &part.bias {
                                Some(b) => b[row],
                                None => 0.0,
                            };
                            let y = sums[i][r] + bias;
                            *to = if write == Write::Add { *to + y } else { y };
                            r += 1;
                        }
                        i += 1;
                    }
                    done = tile_rows;
                    group += 1;
                }
                m += done;
            }
            block = end;
        }
    }
}
