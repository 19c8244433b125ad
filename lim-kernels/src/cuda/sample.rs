//! See [`Sample`].

use std::mem::size_of;

use super::{Buffer, Cuda, ffi};
use crate::{DType, Draw, Error, Result, Sample, SampleParams, Sampled, Tensor};

/// What `lim_sample` needs besides the logits, kept between calls.
pub(super) struct Sampling {
    /// `[rows]` of `lim_sample_params`, as bytes.
    params: Buffer<u8>,
    forced: Buffer<i32>,
    token: Buffer<i32>,
    logprob: Buffer<f32>,
    /// `[rows][vocab]`, made when a penalty is first asked for.
    seen: Option<Buffer<u32>>,
    rows: usize,
}

/// Launches `lim_sample` and reads the tokens back.
pub(super) fn sample(cuda: &mut Cuda, op: Sample<'_, Cuda>) -> Result<()> {
    let Sample { logits, draws, out } = op;
    let [have, vocab] = logits.shape();
    if have < draws.len() {
        return Err(shape("logits", vec![have, vocab], vec![draws.len(), vocab]));
    }
    if out.len() != draws.len() {
        return Err(shape("out", vec![out.len()], vec![draws.len()]));
    }
    if logits.data().dtype != DType::F32 {
        return Err(Error::DType { op: "sample", dtype: logits.data().dtype });
    }
    for draw in draws {
        draw.check("sample", vocab)?;
    }
    if draws.is_empty() {
        return Ok(());
    }
    let mut kept = match cuda.sampling.take() {
        Some(kept) if kept.rows >= draws.len() => kept,
        _ => cuda.make_sampling(draws.len())?,
    };
    let done = cuda.sample_with(&mut kept, logits, draws, out);
    cuda.sampling = Some(kept);
    done
}

impl Cuda {
    fn make_sampling(&mut self, rows: usize) -> Result<Sampling> {
        let rows = rows.next_power_of_two();
        Ok(Sampling {
            params: self.zeros(rows * size_of::<ffi::lim_sample_params>(), "sampling settings")?,
            forced: self.zeros(rows, "forced tokens")?,
            token: self.zeros(rows, "sampled tokens")?,
            logprob: self.zeros(rows, "sampled tokens")?,
            seen: None,
            rows,
        })
    }

    fn sample_with(
        &mut self,
        kept: &mut Sampling,
        logits: &Tensor<super::CudaRows, 2>,
        draws: &[Draw<'_>],
        out: &mut [Sampled],
    ) -> Result<()> {
        let [_, vocab] = logits.shape();
        let (rows, logits_ptr) = (draws.len(), logits.data().data.ptr().cast_const().cast::<f32>());
        let params: Vec<u8> = draws.iter().flat_map(|d| bytes(&d.params, d.generated.len())).collect();
        self.copy_in(&params, &mut kept.params, 0)?;
        let forced: Vec<i32> = draws.iter().map(|d| d.forced.map_or(-1, |t| t as i32)).collect();
        self.copy_in(&forced, &mut kept.forced, 0)?;
        let seen = if draws.iter().any(|d| d.params.has_penalty()) {
            let counts = seen(draws, vocab);
            let mut buffer = match kept.seen.take() {
                Some(buffer) if buffer.len() >= counts.len() => buffer,
                _ => self.zeros(counts.len(), "token counts")?,
            };
            self.copy_in(&counts, &mut buffer, 0)?;
            kept.seen.insert(buffer).ptr().cast_const()
        } else {
            std::ptr::null()
        };
        // SAFETY: computes a size from a number.
        let scratch_bytes = unsafe { ffi::lim_sample_scratch(rows as i32) };
        let args = ffi::lim_sample_args {
            logits: logits_ptr,
            seen,
            params: kept.params.ptr().cast_const().cast(),
            forced: kept.forced.ptr(),
            token: kept.token.ptr(),
            logprob: kept.logprob.ptr(),
            scratch: self.scratch(scratch_bytes as usize)?.cast(),
            scratch_bytes,
            rows: rows as i32,
            vocab: vocab as i32,
        };
        let stream = self.launch_stream()?;
        // SAFETY: device memory of `rows` and `rows * vocab` elements, as checked and made above.
        let status = unsafe { ffi::lim_sample(&args, stream) };
        self.check("sample", DType::F32, status)?;
        let (mut token, mut logprob) = (vec![0i32; rows], vec![0f32; rows]);
        self.copy_out(&kept.token, 0, &mut token)?;
        self.copy_out(&kept.logprob, 0, &mut logprob)?;
        for (row, sampled) in out.iter_mut().enumerate() {
            if token[row] < 0 {
                return Err(self.not_a_number(row, logits)?);
            }
            *sampled = Sampled { token: token[row] as u32, logprob: logprob[row] };
        }
        Ok(())
    }

    /// Which logit of a row kept a token from being drawn.
    fn not_a_number(&mut self, row: usize, logits: &Tensor<super::CudaRows, 2>) -> Result<Error> {
        let [_, vocab] = logits.shape();
        let mut bytes = vec![0u8; vocab * 4];
        self.copy_out(&logits.data().data, row * vocab * 4, &mut bytes)?;
        let values = super::convert::decode(&bytes, DType::F32);
        let bad = values.iter().position(|v| v.is_nan() || *v == f32::INFINITY);
        let index = bad.unwrap_or(0);
        Ok(Error::NotFinite { op: "sample", operand: "logits", row, index, value: values[index] })
    }
}

/// `lim_sample_params` of one row.
fn bytes(p: &SampleParams, draw: usize) -> Vec<u8> {
    let floats =
        [p.temperature, p.top_p, p.min_p, p.repetition_penalty, p.presence_penalty, p.frequency_penalty];
    let mut bytes: Vec<u8> = floats.iter().flat_map(|f| f.to_ne_bytes()).collect();
    bytes.extend(i32::try_from(p.top_k).unwrap_or(i32::MAX).to_ne_bytes());
    bytes.extend((draw as u32).to_ne_bytes());
    bytes.extend(p.seed.to_ne_bytes());
    bytes
}

// `bytes` writes the fields one after the other; the C struct must have no gaps.
const _: () = assert!(size_of::<ffi::lim_sample_params>() == 40);

/// How often each token was generated, and whether it is in the prompt: `[rows][vocab]`.
fn seen(draws: &[Draw<'_>], vocab: usize) -> Vec<u32> {
    let mut seen = vec![0u32; draws.len() * vocab];
    for (draw, row) in draws.iter().zip(seen.chunks_exact_mut(vocab)) {
        if !draw.params.has_penalty() {
            continue;
        }
        for &t in draw.generated {
            row[t as usize] += 1;
        }
        for &t in draw.prompt {
            row[t as usize] |= ffi::LIM_SEEN_IN_PROMPT as u32;
        }
    }
    seen
}

fn shape(operand: &'static str, got: Vec<usize>, expected: Vec<usize>) -> Error {
    Error::Shape { op: "sample", operand, got, expected }
}
