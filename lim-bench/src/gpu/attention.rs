//! Decode attention in its forms, scores without attention, prefill attention, append.

use std::rc::Rc;

use lim_kernels::cuda::Cuda;
use lim_kernels::{
    Attend, Backend, Capacity, Over, PageExtras, Result, RowsKind, Score, ScoreOf, Sets, Step,
};

use super::pool::{Pool, Rotary};
use super::selection::random_selection;
use super::{CALLS, Noise, Prepared, Settings, heads, layout};

const SCALE: f32 = 0.088_388_35; // 1 / sqrt(128)

/// Dense paged decode of `seqs` sequences of `len` tokens; buffers and grids made for `capacity` tokens.
///
/// # Errors
/// When the pool is too small or the device refuses.
pub fn dense(
    cuda: &mut Cuda,
    settings: Settings,
    pool: &Rc<Pool>,
    [seqs, len, capacity]: [usize; 3],
) -> Result<Prepared> {
    let bytes = (seqs * len * layout()?.token_bytes()) as u64;
    let batches = pool.batches(cuda, settings.copies(bytes), seqs, len, capacity)?;
    let (mut counters, heads) = (cuda.counters(1)?, heads()?);
    let mut out = cuda.rows(RowsKind::Activation, [seqs, heads.query() * heads.dim()])?;
    let pool = Rc::clone(pool);
    Prepared::new(cuda, batches.len(), bytes, move |cuda, copy| {
        cuda.attend(Attend {
            q: &pool.qkv,
            kv: &pool.kv,
            heads,
            scale: SCALE,
            batch: &batches[copy],
            over: Over::Dense,
            layer: 0,
            counters: &mut counters,
            out: &mut out,
        })
    })
}

/// Dense paged decode that also writes the raw scores, `[seqs][32][len]` float32.
///
/// # Errors
/// As [`dense`].
pub fn dense_scored(
    cuda: &mut Cuda,
    settings: Settings,
    pool: &Rc<Pool>,
    [seqs, len]: [usize; 2],
) -> Result<Prepared> {
    let heads = heads()?;
    let bytes = (seqs * len * (layout()?.token_bytes() + 4 * heads.query())) as u64;
    let batches = pool.batches(cuda, settings.copies(bytes), seqs, len, len)?;
    let mut counters = cuda.counters(1)?;
    let mut scores = cuda.scores(Capacity { rows: seqs, seqs, tokens: len }, heads)?;
    let mut out = cuda.rows(RowsKind::Activation, [seqs, heads.query() * heads.dim()])?;
    let pool = Rc::clone(pool);
    Prepared::new(cuda, batches.len(), bytes, move |cuda, copy| {
        cuda.attend(Attend {
            q: &pool.qkv,
            kv: &pool.kv,
            heads,
            scale: SCALE,
            batch: &batches[copy],
            over: Over::DenseScored(&mut scores),
            layer: 0,
            counters: &mut counters,
            out: &mut out,
        })
    })
}

/// Decode over `budget` random positions of sequences of `len` tokens: one set for all heads, or one per query head.
///
/// With a set per query head, the fewest bytes are those of the tokens that any head of a group picked, as expected
/// of random sets.
///
/// # Errors
/// As [`dense`].
pub fn gather(
    cuda: &mut Cuda,
    settings: Settings,
    pool: &Rc<Pool>,
    sets: Sets,
    [seqs, budget, len]: [usize; 3],
) -> Result<Prepared> {
    let (layout, heads) = (layout()?, heads()?);
    let tokens = match sets {
        Sets::Shared | Sets::PerKvHead => budget as f64,
        Sets::PerQueryHead => {
            let missed = (1.0 - budget as f64 / len as f64).powi(heads.group() as i32);
            len as f64 * (1.0 - missed)
        }
    };
    let bytes = (seqs as f64 * tokens * layout.token_bytes() as f64) as u64;
    let batches = pool.batches(cuda, settings.copies(bytes), seqs, len, len)?;
    let selection = random_selection(cuda, sets, &batches[0], [seqs, budget, len])?;
    let mut counters = cuda.counters(1)?;
    let mut out = cuda.rows(RowsKind::Activation, [seqs, heads.query() * heads.dim()])?;
    let pool = Rc::clone(pool);
    Prepared::new(cuda, batches.len(), bytes, move |cuda, copy| {
        cuda.attend(Attend {
            q: &pool.qkv,
            kv: &pool.kv,
            heads,
            scale: SCALE,
            batch: &batches[copy],
            over: Over::Selected(&selection),
            layer: 0,
            counters: &mut counters,
            out: &mut out,
        })
    })
}

/// Scores without attention, of every token or (Quest) of every page.
///
/// # Errors
/// As [`dense`].
pub fn score(
    cuda: &mut Cuda,
    settings: Settings,
    pool: &Rc<Pool>,
    of: ScoreOf,
    [seqs, len]: [usize; 2],
) -> Result<Prepared> {
    let (layout, heads) = (layout()?, heads()?);
    // Keys alone, or minima and maxima in their place; and the scores.
    let (read, written) = match of {
        ScoreOf::Tokens => (len * layout.token_bytes() / 2, len),
        ScoreOf::Pages => {
            let pages = layout.page_size.pages_for(len);
            (pages * layout.token_bytes(), pages)
        }
    };
    let bytes = (seqs * (read + written * heads.query() * 4)) as u64;
    let batches = pool.batches(cuda, settings.copies(bytes), seqs, len, len)?;
    let mut counters = cuda.counters(1)?;
    let mut scores = cuda.scores(Capacity { rows: seqs, seqs, tokens: len }, heads)?;
    let pool = Rc::clone(pool);
    Prepared::new(cuda, batches.len(), bytes, move |cuda, copy| {
        cuda.score(Score {
            q: &pool.qkv,
            kv: &pool.kv,
            heads,
            batch: &batches[copy],
            of,
            budget: 0,
            layer: 0,
            counters: &mut counters,
            out: &mut scores,
        })
    })
}

/// Causal attention of the last `rows` of `len` tokens of one sequence. Its limit is arithmetic.
///
/// # Errors
/// As [`dense`].
pub fn prefill(cuda: &mut Cuda, pool: &Rc<Pool>, [rows, len]: [usize; 2]) -> Result<Prepared> {
    let (layout, heads) = (layout()?, heads()?);
    let width = heads.query() * heads.dim();
    let batch = pool.chunk(cuda, rows, len)?;
    let mut q = cuda.rows(RowsKind::Activation, [rows, width])?;
    cuda.write_rows(&Noise::new(7).floats(rows * width, 1.7), &mut q)?;
    let mut counters = cuda.counters(1)?;
    let mut out = cuda.rows(RowsKind::Activation, [rows, width])?;
    let bytes = (len * layout.token_bytes() + 2 * rows * width * layout.dtype.bytes()) as u64;
    let pairs = rows as f64 * (len as f64 - (rows as f64 - 1.0) / 2.0);
    let pool = Rc::clone(pool);
    let prepared = Prepared::new(cuda, 1, bytes, move |cuda, _| {
        cuda.attend(Attend {
            q: &q,
            kv: &pool.kv,
            heads,
            scale: SCALE,
            batch: &batch,
            over: Over::Dense,
            layer: 0,
            counters: &mut counters,
            out: &mut out,
        })
    })?;
    Ok(Prepared { flops: Some(4.0 * width as f64 * pairs), ..prepared })
}

/// QK-norm, rotary embedding and append of one token to each of `seqs` sequences of `len` tokens, without page
/// bounds. Rows are warm, as the product before left them; the page that is written is another one in every call.
///
/// # Errors
/// When the device refuses.
pub fn append(cuda: &mut Cuda, rotary: &Rc<Rotary>, [seqs, len]: [usize; 2]) -> Result<Prepared> {
    let (layout, heads) = (layout()?, heads()?);
    let mut kv = cuda.kv(layout, CALLS * seqs + 1, PageExtras::default())?;
    let capacity = Capacity { rows: seqs, seqs, tokens: len };
    let mut batches = Vec::with_capacity(CALLS);
    for call in 0..CALLS {
        let mut step = Step::with_capacity(capacity, layout.page_size);
        for seq in 0..seqs {
            let mut table = vec![0; layout.page_size.pages_for(len)];
            if let Some(last) = table.last_mut() {
                *last = (1 + call * seqs + seq) as u32;
            }
            step.push(&[0], len, &table)?;
        }
        let mut batch = cuda.batch(capacity, layout.page_size)?;
        cuda.upload(&step, &mut batch)?;
        batches.push(batch);
    }
    let mut qkv = cuda.rows(RowsKind::Activation, [seqs, heads.qkv_width()])?;
    cuda.write_rows(&Noise::new(3).floats(qkv.len(), 1.7), &mut qkv)?;
    // q read and written, k and v read and written, a row of cosines and sines.
    let elements = 2 * heads.qkv_width() * layout.dtype.bytes() + heads.dim() * 4;
    let rotary = Rc::clone(rotary);
    Prepared::new(cuda, CALLS, (seqs * elements) as u64, move |cuda, call| {
        cuda.append(rotary.append(&mut qkv, &batches[call], &mut kv))
    })
}
