//! Small uploads that nobody waits for: they go through page-locked memory, which the device reads while the host goes on.

use cudarc::driver::{DeviceRepr, result};

use super::staging::Half;
use super::{Buffer, Cuda};
use crate::{Error, Result};

/// Bytes of one half: some hundred steps of small changes.
const HALF: usize = 1 << 20;

/// Two halves of page-locked memory, filled in turn.
pub(super) struct Outbox {
    halves: [Half; 2],
    /// Half in use, and its bytes in use.
    at: usize,
    used: usize,
}

impl Cuda {
    /// Copies `data` over the elements of `buffer` from `at` on, in the order of the stream. Waits for nothing; `data` has
    /// been read when this returns.
    pub(super) fn send<T: DeviceRepr>(
        &mut self,
        data: &[T],
        buffer: &mut Buffer<T>,
        at: usize,
    ) -> Result<()> {
        let (end, len) = (at + data.len(), buffer.len());
        if end > len {
            let must = format!("at most the buffer's length, {len}");
            return Err(Error::Range { op: "copy to device", what: "end", got: end as u64, must });
        }
        let mut outbox = match self.outbox.take() {
            Some(outbox) => outbox,
            None => Outbox { halves: [Half::new(self, HALF)?, Half::new(self, HALF)?], at: 0, used: 0 },
        };
        let mut place = buffer.ptr().wrapping_add(at) as u64;
        let mut sent = Ok(());
        for part in data.chunks(HALF / size_of::<T>()) {
            // SAFETY: plain numbers, or structs of them without padding, read as bytes.
            let bytes = unsafe { std::slice::from_raw_parts(part.as_ptr().cast::<u8>(), size_of_val(part)) };
            sent = sent.and_then(|()| outbox.send(self, bytes, place));
            place += bytes.len() as u64;
        }
        self.outbox = Some(outbox);
        sent
    }
}

impl Outbox {
    /// `place`: device memory with room for `bytes`, which fit into a half.
    fn send(&mut self, cuda: &Cuda, bytes: &[u8], place: u64) -> Result<()> {
        let failed = |e| cuda.driver_error(e);
        let stream = cuda.launch_stream()?.cast();
        if self.used + bytes.len() > HALF {
            (self.at, self.used) = (1 - self.at, 0);
            if let Some(sent) = &self.halves[self.at].sent {
                sent.synchronize().map_err(failed)?;
            }
        }
        let Half { memory, sent } = &mut self.halves[self.at];
        let memory = memory.as_mut_slice().map_err(failed)?;
        let staged = &mut memory[self.used..self.used + bytes.len()];
        staged.copy_from_slice(bytes);
        // SAFETY: the caller vouches for the device memory. The staged bytes stay: whoever fills this half again or drops it
        // waits for the event below.
        unsafe { result::memcpy_htod_async(place, &*staged, stream) }.map_err(failed)?;
        match sent {
            Some(sent) => sent.record(cuda.stream()).map_err(failed)?,
            None => *sent = Some(cuda.stream().record_event(None).map_err(failed)?),
        }
        self.used = (self.used + bytes.len()).next_multiple_of(16);
        Ok(())
    }
}
