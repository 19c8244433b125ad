//! Small uploads that nobody waits for: they go through page-locked memory, which the device reads while the host goes on.

use std::ops::Range;

use cudarc::driver::{DeviceRepr, result, sys};

use super::buffer::past_end;
use super::staging::Half;
use super::{Buffer, Cuda};
use crate::Result;

/// Bytes of one half: some hundred steps of small changes.
pub(super) const HALF: usize = 1 << 20;

/// Two halves of page-locked memory, filled in turn.
pub(super) struct Outbox {
    halves: [Half; 2],
    /// Half in use, and its bytes in use.
    at: usize,
    used: usize,
}

/// Where bytes go on the device.
#[derive(Clone, Copy)]
struct Place {
    at: u64,
    /// Bytes of a row, and from one row's start to the next one's. All bytes are one row where there is but one.
    width: usize,
    pitch: usize,
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
            return Err(past_end("copy to device", end, len));
        }
        let mut at = buffer.ptr().wrapping_add(at) as u64;
        self.with_outbox(|outbox, cuda| {
            data.chunks(HALF / size_of::<T>()).try_for_each(|part| {
                let bytes = bytes_of(part);
                let place = Place { at, width: bytes.len(), pitch: bytes.len() };
                at += bytes.len() as u64;
                outbox.send(cuda, std::iter::once(bytes), place)
            })
        })
    }

    /// Copies the elements in `rows` and `columns` of `data`, rows of `stride` elements, over those of `buffer`, which is
    /// alike, in one transfer of at most [`HALF`] bytes. As [`Cuda::send`] otherwise.
    pub(super) fn send_block<T: DeviceRepr>(
        &mut self,
        data: &[T],
        stride: usize,
        (rows, columns): (Range<usize>, Range<usize>),
        buffer: &mut Buffer<T>,
    ) -> Result<()> {
        let (end, len) = (rows.end * stride, buffer.len().min(data.len()));
        if end > len || columns.end > stride {
            return Err(past_end("copy to device", end.max(columns.end), len));
        }
        let bytes = |elements: usize| elements * size_of::<T>();
        let place = Place {
            at: buffer.ptr().wrapping_add(rows.start * stride + columns.start) as u64,
            width: bytes(columns.len()),
            pitch: bytes(stride),
        };
        let row = |row| bytes_of(&data[row * stride..][columns.clone()]);
        self.with_outbox(|outbox, cuda| outbox.send(cuda, rows.map(row), place))
    }

    fn with_outbox(&mut self, send: impl FnOnce(&mut Outbox, &Cuda) -> Result<()>) -> Result<()> {
        let mut outbox = match self.outbox.take() {
            Some(outbox) => outbox,
            None => Outbox { halves: [Half::new(self, HALF)?, Half::new(self, HALF)?], at: 0, used: 0 },
        };
        let sent = send(&mut outbox, self);
        self.outbox = Some(outbox);
        sent
    }
}

fn bytes_of<T: DeviceRepr>(data: &[T]) -> &[u8] {
    // SAFETY: plain numbers, or structs of them without padding, read as bytes.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), size_of_val(data)) }
}

impl Outbox {
    /// `place`: device memory with room for `rows`, rows of its width that fit into a half together.
    fn send<'a>(
        &mut self,
        cuda: &Cuda,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
        place: Place,
    ) -> Result<()> {
        let failed = |e| cuda.driver_error(e);
        let stream = cuda.launch_stream()?.cast();
        let Place { at, width, .. } = place;
        let height = rows.len();
        if self.used + height * width > HALF {
            (self.at, self.used) = (1 - self.at, 0);
            if let Some(sent) = &self.halves[self.at].sent {
                sent.synchronize().map_err(failed)?;
            }
        }
        let Half { memory, sent } = &mut self.halves[self.at];
        let memory = memory.as_mut_slice().map_err(failed)?;
        let staged = &mut memory[self.used..self.used + height * width];
        for (staged, row) in staged.chunks_mut(width.max(1)).zip(rows) {
            staged.copy_from_slice(row);
        }
        // SAFETY: the caller vouches for the device memory. The staged bytes stay: whoever fills this half again or drops it
        // waits for the event below.
        unsafe {
            match height {
                1 => result::memcpy_htod_async(at, &*staged, stream),
                _ => sys::cuMemcpy2DAsync_v2(&block(staged, height, place), stream).result(),
            }
        }
        .map_err(failed)?;
        match sent {
            Some(sent) => sent.record(cuda.stream()).map_err(failed)?,
            None => *sent = Some(cuda.stream().record_event(None).map_err(failed)?),
        }
        self.used = (self.used + height * width).next_multiple_of(16);
        Ok(())
    }
}

/// A transfer of `height` rows, one behind the other in `staged`.
fn block(staged: &[u8], height: usize, Place { at, width, pitch }: Place) -> sys::CUDA_MEMCPY2D {
    sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: staged.as_ptr().cast(),
        srcDevice: 0,
        srcArray: std::ptr::null_mut(),
        srcPitch: width,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: std::ptr::null_mut(),
        dstDevice: at,
        dstArray: std::ptr::null_mut(),
        dstPitch: pitch,
        WidthInBytes: width,
        Height: height,
    }
}
