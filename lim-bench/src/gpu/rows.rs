//! Embedding and sampling.

use std::rc::Rc;
use std::time::Instant;

use lim_kernels::cuda::Cuda;
use lim_kernels::{
    Backend, Capacity, Draw, Embed, PageSize, Result, RowsKind, Sample, SampleParams, Sampled, Step,
};

use super::weights::{Model, VOCAB};
use super::{CALLS, Noise, Prepared, median};

/// Rows of the embedding for `rows` random tokens, other ones in every call.
///
/// # Errors
/// When the device refuses.
pub fn embed(cuda: &mut Cuda, model: &Rc<Model>, rows: usize) -> Result<Prepared> {
    const WIDTH: usize = 4096;
    let mut noise = Noise::new(13);
    let mut batches = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let mut step = Step::default();
        (0..rows).try_for_each(|_| step.push(&[noise.below(VOCAB) as u32], 1, &[0]))?;
        let mut batch = cuda.batch(Capacity { rows, seqs: rows, tokens: 16 }, PageSize::default())?;
        cuda.upload(&step, &mut batch)?;
        batches.push(batch);
    }
    let mut x = cuda.rows(RowsKind::Residual, [rows, WIDTH])?;
    let model = Rc::clone(model);
    // bf16 read, float32 written.
    Prepared::new(cuda, CALLS, (rows * WIDTH * (2 + 4)) as u64, move |cuda, call| {
        cuda.embed(Embed { table: &model.head, batch: &batches[call], x: &mut x })
    })
}

/// Median microseconds, by the host's clock, of drawing one token for each of `rows` rows of 151,936 random logits:
/// settings up, kernels, tokens down. Also the fewest bytes.
///
/// # Errors
/// When the device refuses.
pub fn sample(cuda: &mut Cuda, rows: usize, params: SampleParams, repeats: usize) -> Result<(f64, u64)> {
    let mut logits = cuda.rows(RowsKind::Logits, [rows, VOCAB])?;
    cuda.write_rows(&Noise::new(17).floats(rows * VOCAB, 8.0), &mut logits)?;
    let generated = [1u32, 2, 3];
    let draws = vec![Draw { params, generated: &generated, ..Draw::default() }; rows];
    let mut places = cuda.draws(rows, VOCAB)?;
    let mut out = vec![Sampled { token: 0, logprob: 0.0 }; rows];
    let mut seconds = Vec::with_capacity(repeats);
    for _ in 0..repeats.max(1) + 3 {
        cuda.synchronize()?;
        let begun = Instant::now();
        cuda.start_draws(&draws, &mut places)?;
        cuda.sample(Sample { logits: &logits, draws: &mut places, next: None })?;
        cuda.post_draws(&mut places)?;
        cuda.read_draws(&mut places, &mut out)?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    // The first calls make room and load the kernels.
    Ok((median(seconds.split_off(3)) * 1e6, (rows * VOCAB * 4) as u64))
}
