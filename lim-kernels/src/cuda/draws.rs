//! How rows are drawn for, on the device, and what was drawn, in page-locked memory that the device writes to.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, DeviceRepr, PinnedHostSlice, ValidAsZeroBits, sys};

use super::check::shape_error;
use super::{Buffer, Cuda, ffi};
use crate::{DType, Draw, Error, MAX_STOP_TOKENS, MAX_UNREAD_DRAWS, Result, Sampled};

const OP: &str = "sample";

// SAFETY: a C struct of numbers, for which all bits zero are a value.
unsafe impl DeviceRepr for ffi::lim_draw {}
// SAFETY: as above.
unsafe impl ValidAsZeroBits for ffi::lim_draw {}

// Sent as bytes, so it must have no gaps; and one side's limits are the other's.
const _: () = assert!(size_of::<ffi::lim_draw>() == 6 * 4 + 2 * 4 + 8 + 4 * MAX_STOP_TOKENS);
const _: () = assert!(ffi::LIM_STOP_TOKENS as usize == MAX_STOP_TOKENS);
const _: () = assert!(ffi::LIM_DRAW_SLOTS as usize == MAX_UNREAD_DRAWS);

/// Settings, counts and results of a step's rows.
pub struct CudaDraws {
    draws: Buffer<ffi::lim_draw>,
    /// `[rows]`, then the number of samples since the start.
    forced: Buffer<i32>,
    /// `[rows][vocab]`
    seen: Buffer<u32>,
    /// Tokens that `seen` is made of, with what `lim_seen` needs to know of them.
    history: Option<Buffer<i32>>,
    results: Results,
    rows: usize,
    pub(super) vocab: usize,
    /// Rows that were started.
    pub(super) started: usize,
    /// Steps posted and read since the start.
    posted: usize,
    read: usize,
}

/// What the device has drawn: `[LIM_DRAW_SLOTS][rows]`, each slot there once its event has passed.
struct Results {
    _token: PinnedHostSlice<i32>,
    _logprob: PinnedHostSlice<f32>,
    /// Addresses of the two, the same for the host and the device.
    at: [usize; 2],
    done: [CudaEvent; MAX_UNREAD_DRAWS],
    stream: Arc<CudaStream>,
}

impl Drop for Results {
    fn drop(&mut self) {
        // The device may still be writing. A failure shows in the call that waits for results.
        let _ = self.stream.synchronize();
    }
}

impl CudaDraws {
    /// Device addresses: draws, forced tokens, counts, number of samples; and the results' places.
    pub(super) fn args(&mut self) -> ffi::lim_sample_args {
        let (forced, [token, logprob]) = (self.forced.ptr(), self.results.at);
        ffi::lim_sample_args {
            logits: std::ptr::null(),
            draws: self.draws.ptr(),
            forced,
            seen: self.seen.ptr(),
            turn: forced.wrapping_add(self.rows).cast(),
            token: token as *mut i32,
            logprob: logprob as *mut f32,
            next_token: std::ptr::null_mut(),
            next_pos: std::ptr::null_mut(),
            next_len: std::ptr::null_mut(),
            scratch: std::ptr::null_mut(),
            scratch_bytes: 0,
            stride: self.rows as i32,
            rows: 0,
            vocab: self.vocab as i32,
        }
    }

    pub(super) fn expect_rows(&self, rows: usize) -> Result<()> {
        if rows <= self.rows {
            return Ok(());
        }
        Err(shape_error(OP, "rows to draw for", &[rows], &[self.rows]))
    }

    /// Slot of the results of step `index` since the start: the device counts a sample before it writes.
    fn slot(index: usize) -> usize {
        (index + 1) % MAX_UNREAD_DRAWS
    }
}

impl Cuda {
    pub(super) fn make_draws(&mut self, rows: usize, vocab: usize) -> Result<CudaDraws> {
        let most = i32::MAX as usize / 2;
        if rows == 0 || vocab == 0 || rows > most || vocab > most {
            return Err(shape_error(OP, "rows and vocabulary", &[rows, vocab], &[1, 1]));
        }
        let stream = Arc::clone(self.stream());
        let context = stream.context();
        let slots = rows * MAX_UNREAD_DRAWS;
        let full = |_| Error::OutOfMemory {
            device: "host".into(),
            bytes: slots * 8,
            free: None,
            what: "page-locked memory",
        };
        let event = || {
            let flags = Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
            context.new_event(flags).map_err(|e| self.driver_error(e))
        };
        let done = [event()?, event()?];
        // SAFETY: nothing is read but what the device has written by then.
        let (mut token, mut logprob): (PinnedHostSlice<i32>, PinnedHostSlice<f32>) = unsafe {
            (
                context.alloc_pinned_with_flags(slots, 0).map_err(full)?,
                context.alloc_pinned_with_flags(slots, 0).map_err(full)?,
            )
        };
        let failed = |e| self.driver_error(e);
        let at =
            [token.as_mut_ptr().map_err(failed)? as usize, logprob.as_mut_ptr().map_err(failed)? as usize];
        let results = Results { _token: token, _logprob: logprob, at, done, stream: Arc::clone(&stream) };
        Ok(CudaDraws {
            draws: self.zeros(rows, "sampling settings")?,
            forced: self.zeros(rows + 1, "forced tokens")?,
            seen: self.zeros(rows * vocab, "token counts")?,
            history: None,
            results,
            rows,
            vocab,
            started: 0,
            posted: 0,
            read: 0,
        })
    }

    pub(super) fn begin_draws(&mut self, draws: &[Draw<'_>], to: &mut CudaDraws) -> Result<()> {
        to.expect_rows(draws.len())?;
        for draw in draws {
            draw.check(OP, to.vocab)?;
        }
        let mut raw = vec![raw(&Draw::default()); to.rows];
        let mut forced = vec![-1; to.rows];
        for (row, draw) in draws.iter().enumerate() {
            raw[row] = self::raw(draw);
            forced[row] = draw.forced.map_or(-1, |token| token as i32);
        }
        forced.push(0);
        self.send(&raw, &mut to.draws, 0)?;
        self.send(&forced, &mut to.forced, 0)?;
        if draws.iter().any(|draw| draw.params.has_penalty()) {
            self.count_seen(draws, to)?;
        }
        (to.started, to.posted, to.read) = (draws.len(), 0, 0);
        Ok(())
    }

    /// Launches `lim_seen`.
    fn count_seen(&mut self, draws: &[Draw<'_>], to: &mut CudaDraws) -> Result<()> {
        let rows = draws.len();
        // first [rows + 1], prompts [rows], then the tokens.
        let mut history = vec![0; 2 * rows + 1];
        for (row, draw) in draws.iter().enumerate().filter(|(_, draw)| draw.params.has_penalty()) {
            history.extend(draw.prompt.iter().chain(draw.generated).map(|&token| token as i32));
            history[rows + 1 + row] = draw.prompt.len() as i32;
            let tokens = (history.len() - 2 * rows - 1) as i32;
            history[row + 1..=rows].fill(tokens);
        }
        let mut buffer = match to.history.take() {
            Some(buffer) if buffer.len() >= history.len() => buffer,
            _ => self.zeros(history.len().next_power_of_two(), "tokens to count")?,
        };
        self.send(&history, &mut buffer, 0)?;
        let first = to.history.insert(buffer).ptr().cast_const();
        let args = ffi::lim_seen_args {
            seen: to.seen.ptr(),
            tokens: first.wrapping_add(2 * rows + 1),
            first,
            prompts: first.wrapping_add(rows + 1),
            rows: rows as i32,
            vocab: to.vocab as i32,
        };
        let stream = self.launch_stream()?;
        // SAFETY: device memory of the extents above; every token was checked against the vocabulary.
        let status = unsafe { ffi::lim_seen(&args, stream) };
        self.check("count tokens", DType::F32, status)
    }

    pub(super) fn force(&mut self, tokens: &[Option<u32>], draws: &mut CudaDraws) -> Result<()> {
        draws.expect_rows(tokens.len())?;
        if let Some(token) = tokens.iter().flatten().find(|&&token| token as usize >= draws.vocab) {
            let must = format!("below the vocabulary's {}", draws.vocab);
            return Err(Error::Range { op: OP, what: "token id", got: u64::from(*token), must });
        }
        let forced: Vec<i32> = tokens.iter().map(|token| token.map_or(-1, |token| token as i32)).collect();
        self.send(&forced, &mut draws.forced, 0)
    }

    pub(super) fn post(&mut self, draws: &mut CudaDraws) -> Result<()> {
        if draws.posted - draws.read >= MAX_UNREAD_DRAWS {
            let (got, must) = ((draws.posted - draws.read + 1) as u64, format!("at most {MAX_UNREAD_DRAWS}"));
            return Err(Error::Range { op: OP, what: "unread draws", got, must });
        }
        let done = &draws.results.done[CudaDraws::slot(draws.posted)];
        done.record(self.stream()).map_err(|e| self.driver_error(e))?;
        draws.posted += 1;
        Ok(())
    }

    pub(super) fn take_draws(&mut self, draws: &mut CudaDraws, out: &mut [Sampled]) -> Result<()> {
        draws.expect_rows(out.len())?;
        if draws.read == draws.posted {
            let must = "at least 1".into();
            return Err(Error::Range { op: OP, what: "draws posted and not read", got: 0, must });
        }
        let slot = CudaDraws::slot(draws.read);
        draws.read += 1;
        let Results { at: [token, logprob], done, .. } = &draws.results;
        done[slot].synchronize().map_err(|e| self.driver_error(e))?;
        let (token, logprob) = (*token as *const i32, *logprob as *const f32);
        for (row, sampled) in out.iter_mut().enumerate() {
            let at = slot * draws.rows + row;
            // SAFETY: inside the slots. The step that wrote this one is done, and those under way write to the other.
            let (token, logprob) =
                unsafe { (token.add(at).read_volatile(), logprob.add(at).read_volatile()) };
            if token < 0 {
                let index = (-1 - token) as usize;
                return Err(Error::NotFinite { op: OP, operand: "logits", row, index, value: logprob });
            }
            *sampled = Sampled { token: token as u32, logprob };
        }
        Ok(())
    }
}

fn raw(draw: &Draw<'_>) -> ffi::lim_draw {
    let p = &draw.params;
    let mut stop = [-1; MAX_STOP_TOKENS];
    for (place, &token) in stop.iter_mut().zip(draw.stop) {
        *place = token as i32;
    }
    ffi::lim_draw {
        temperature: p.temperature,
        top_p: p.top_p,
        min_p: p.min_p,
        repetition_penalty: p.repetition_penalty,
        presence_penalty: p.presence_penalty,
        frequency_penalty: p.frequency_penalty,
        top_k: i32::try_from(p.top_k).unwrap_or(i32::MAX),
        draw: draw.generated.len() as u32,
        seed: p.seed,
        stop,
    }
}
