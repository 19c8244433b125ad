//! Weights on their way to the device, through page-locked memory: while one half is on its way, the other is filled by
//! several threads. A copy from pageable memory would be staged by the driver, in one thread.

use cudarc::driver::{CudaEvent, PinnedHostSlice, result};

use super::convert::convert_into;
use super::{Buffer, Cuda};
use crate::{DType, Error, Result};

/// Bytes of one half.
const HALF: usize = 32 << 20;
/// Bytes on the device that are worth a thread: what it copies while another is started, several times over.
const PER_THREAD: usize = 2 << 20;
/// Threads that fill a half; one core copies at a fraction of what the bus takes.
const THREADS: usize = 8;

/// Two halves of page-locked memory, used in turn.
pub(super) struct Staging {
    halves: [Half; 2],
    /// Half to fill next.
    next: usize,
}

pub(super) struct Half {
    pub(super) memory: PinnedHostSlice<u8>,
    /// After the last transfer from here.
    pub(super) sent: Option<CudaEvent>,
}

impl Drop for Half {
    fn drop(&mut self) {
        if let Some(sent) = &self.sent {
            // The memory is about to go; a failed transfer shows in the call that waits for its results.
            let _ = sent.synchronize();
        }
    }
}

impl Half {
    pub(super) fn new(cuda: &Cuda, bytes: usize) -> Result<Self> {
        // SAFETY: the bytes are written before they are read. Readable flags, since conversion may read what it wrote.
        let memory = unsafe { cuda.stream().context().alloc_pinned_with_flags(bytes, 0) };
        let memory = memory.map_err(|_| Error::OutOfMemory {
            device: "host".into(),
            bytes,
            free: None,
            what: "page-locked memory",
        })?;
        Ok(Half { memory, sent: None })
    }
}

impl Cuda {
    /// Brings elements of type `from` to the device as elements of type `to`, over the bytes of `buffer` from `at` on.
    /// Returns when `bytes` has been read; the last transfers may still be under way.
    pub(super) fn stream_in(
        &mut self,
        bytes: &[u8],
        [from, to]: [DType; 2],
        buffer: &mut Buffer<u8>,
        at: usize,
    ) -> Result<()> {
        let (end, len) = (at + bytes.len() / from.bytes() * to.bytes(), buffer.len());
        if end > len {
            let must = format!("at most the buffer's length, {len}");
            return Err(Error::Range { op: "copy to device", what: "end", got: end as u64, must });
        }
        let mut staging = match self.staging.take() {
            Some(staging) => staging,
            None => Staging { halves: [Half::new(self, HALF)?, Half::new(self, HALF)?], next: 0 },
        };
        let sent = staging.send(self, bytes, [from, to], buffer.ptr() as u64 + at as u64);
        self.staging = Some(staging);
        sent
    }
}

impl Staging {
    /// `place`: device memory with room for all of it.
    fn send(&mut self, cuda: &Cuda, bytes: &[u8], types: [DType; 2], mut place: u64) -> Result<()> {
        let [from, to] = types;
        let stream = cuda.launch_stream()?.cast();
        let failed = |e| cuda.driver_error(e);
        for part in bytes.chunks(HALF / to.bytes() * from.bytes()) {
            let Half { memory, sent } = &mut self.halves[self.next];
            if let Some(sent) = sent.take() {
                sent.synchronize().map_err(failed)?;
            }
            let staged =
                &mut memory.as_mut_slice().map_err(failed)?[..part.len() / from.bytes() * to.bytes()];
            fill(part, types, staged);
            // SAFETY: the caller vouches for the device memory. The staged bytes stay until the event below has passed:
            // whoever fills or drops this half waits for it.
            unsafe { result::memcpy_htod_async(place, &*staged, stream) }.map_err(failed)?;
            place += staged.len() as u64;
            *sent = Some(cuda.stream().record_event(None).map_err(failed)?);
            self.next = 1 - self.next;
        }
        Ok(())
    }
}

/// Copies or converts all of `bytes` to `staged`, on several threads where there is enough for them.
fn fill(bytes: &[u8], types: [DType; 2], staged: &mut [u8]) {
    let [from, to] = types;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (staged.len() / PER_THREAD).clamp(1, cores.min(THREADS));
    let elements = (staged.len() / to.bytes()).div_ceil(threads).max(1);
    let mut parts = bytes.chunks(elements * from.bytes()).zip(staged.chunks_mut(elements * to.bytes()));
    std::thread::scope(|scope| {
        let own = parts.next();
        for (bytes, staged) in parts {
            scope.spawn(move || convert_into(bytes, types, staged));
        }
        if let Some((bytes, staged)) = own {
            convert_into(bytes, types, staged);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::convert::{decode, encode};
    use super::*;

    #[test]
    fn threads_share_a_half_without_a_gap() {
        let values: Vec<f32> = (0..3 * PER_THREAD / 2 + 7).map(|i| (i % 251) as f32).collect();
        for from in [DType::F32, DType::F16, DType::BF16] {
            for to in [DType::F32, DType::F16, DType::BF16] {
                let mut staged = vec![0xff; values.len() * to.bytes()];
                fill(&encode(&values, from), [from, to], &mut staged);
                assert!(decode(&staged, to) == values, "{from} to {to}");
            }
        }
    }
}
