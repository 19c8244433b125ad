//! Device memory.

use cudarc::driver::{CudaSlice, DevicePtrMut, DeviceRepr, DriverError, ValidAsZeroBits, sys};

use super::Cuda;
use crate::{Error, Result};

/// Device memory of `len` elements, 256-byte aligned, freed when dropped.
pub struct Buffer<T> {
    slice: CudaSlice<T>,
    ptr: u64,
}

impl<T> Buffer<T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.slice.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Device address of the first element.
    pub(super) fn ptr(&self) -> *mut T {
        self.ptr as *mut T
    }

    pub(super) fn slice(&self) -> &CudaSlice<T> {
        &self.slice
    }
}

impl Cuda {
    /// Zeroed memory of `len` elements (at least one, so that the address is a real one).
    pub(super) fn zeros<T: DeviceRepr + ValidAsZeroBits>(
        &mut self,
        len: usize,
        what: &'static str,
    ) -> Result<Buffer<T>> {
        let bytes = len.saturating_mul(size_of::<T>());
        // A length whose bytes do not fit an address is past any memory, but would wrap around below.
        let made = match bytes {
            usize::MAX => Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)),
            _ => self.stream().alloc_zeros::<T>(len.max(1)),
        };
        let mut slice = made.map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = self.memory().ok().map(|(free, _)| free);
                Error::OutOfMemory { device: self.name(), bytes, free, what }
            }
            _ => self.driver_error(e),
        })?;
        let ptr = slice.device_ptr_mut(self.stream()).0;
        Ok(Buffer { slice, ptr })
    }

    /// Memory that holds `data`.
    pub(super) fn upload_slice<T: DeviceRepr + ValidAsZeroBits>(
        &mut self,
        data: &[T],
        what: &'static str,
    ) -> Result<Buffer<T>> {
        let mut buffer = self.zeros(data.len(), what)?;
        self.copy_in(data, &mut buffer, 0)?;
        Ok(buffer)
    }

    /// Copies `data` over the elements from `at` on.
    pub(super) fn copy_in<T: DeviceRepr>(
        &mut self,
        data: &[T],
        buffer: &mut Buffer<T>,
        at: usize,
    ) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let len = buffer.len();
        let place = buffer.slice.try_slice_mut(at..at + data.len());
        let mut place = place.ok_or_else(|| past_end("copy to device", at + data.len(), len))?;
        self.stream().memcpy_htod(data, &mut place).map_err(|e| self.driver_error(e))
    }

    /// Copies all of `from` over the elements of `to` from `at` on.
    pub(super) fn copy_over<T: DeviceRepr>(
        &mut self,
        from: &Buffer<T>,
        to: &mut Buffer<T>,
        at: usize,
    ) -> Result<()> {
        let (end, len) = (at + from.len(), to.len());
        let mut place =
            to.slice.try_slice_mut(at..end).ok_or_else(|| past_end("copy on device", end, len))?;
        self.stream().memcpy_dtod(&from.slice, &mut place).map_err(|e| self.driver_error(e))
    }

    /// Reads `out.len()` elements from `at` on, and waits for them.
    pub(super) fn copy_out<T: DeviceRepr>(
        &mut self,
        buffer: &Buffer<T>,
        at: usize,
        out: &mut [T],
    ) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let place = buffer.slice.try_slice(at..at + out.len());
        let place = place.ok_or_else(|| past_end("copy from device", at + out.len(), buffer.len()))?;
        self.stream().memcpy_dtoh(&place, out).map_err(|e| self.driver_error(e))?;
        self.synchronize()
    }
}

pub(super) fn past_end(op: &'static str, end: usize, len: usize) -> Error {
    Error::Range { op, what: "end", got: end as u64, must: format!("at most the buffer's length, {len}") }
}
