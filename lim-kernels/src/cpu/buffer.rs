//! Zeroed memory on cache-line boundaries, and a view that lets tasks write disjoint parts of it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};

use crate::{Error, Result};

const LINE: usize = 64;

/// Gives an empty buffer an address on a line too.
#[repr(align(64))]
struct Line;

/// From this size on memory is mapped, and huge pages are asked for: gathering tokens from small pages misses the TLB.
const HUGE: usize = 2 << 20;

/// Zero-initialised bytes that start on a cache line.
#[derive(Debug)]
pub struct Buffer {
    start: NonNull<u8>,
    bytes: usize,
    /// Owner of the memory where it is mapped, else it comes from the allocator.
    map: Option<MmapMut>,
}

// SAFETY: the buffer owns plain bytes that nothing else refers to.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads plain bytes.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `count` elements of `size` bytes, all zero. The memory is touched when it is first written.
    pub(super) fn new(count: usize, size: usize, what: &'static str) -> Result<Self> {
        let refuse = || Error::OutOfMemory {
            device: "cpu".into(),
            bytes: count.saturating_mul(size),
            free: None,
            what,
        };
        let bytes = count.checked_mul(size).ok_or_else(refuse)?;
        if bytes == 0 {
            return Ok(Buffer::default());
        }
        if bytes >= HUGE {
            let mut map = MmapOptions::new().len(bytes).map_anon().map_err(|_| refuse())?;
            // Only a hint: a kernel without huge pages refuses it, and the memory works all the same.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            let start = NonNull::new(map.as_mut_ptr()).ok_or_else(refuse)?;
            return Ok(Buffer { start, bytes, map: Some(map) });
        }
        let layout = Layout::from_size_align(bytes, LINE).map_err(|_| refuse())?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refuse)?;
        Ok(Buffer { start, bytes, map: None })
    }

    /// `count` float32, all zero.
    pub(super) fn floats(count: usize, what: &'static str) -> Result<Self> {
        Buffer::new(count, 4, what)
    }

    /// Makes the buffer hold at least `count` float32; what it held is lost when it has to grow.
    pub(super) fn reserve(&mut self, count: usize) -> Result<()> {
        if self.bytes < count * 4 {
            *self = Buffer::floats(count, "scratch")?;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` holds `bytes` initialised bytes for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// The buffer as float32.
    pub fn f32s(&self) -> &[f32] {
        bytemuck::cast_slice(self.bytes())
    }

    /// The buffer as float32, to write.
    pub fn f32s_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.bytes_mut())
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer { start: NonNull::<Line>::dangling().cast(), bytes: 0, map: None }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes > 0 && self.map.is_none() {
            // SAFETY: `new` allocated with this very layout.
            unsafe { dealloc(self.start.as_ptr(), Layout::from_size_align_unchecked(self.bytes, LINE)) }
        }
    }
}

/// A mutable slice that several tasks write, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: `slice` makes its caller promise that no two tasks touch the same element.
unsafe impl<T: Send> Send for Parts<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(super) fn new(whole: &'a mut [T]) -> Self {
        Parts { start: whole.as_mut_ptr(), len: whole.len(), life: PhantomData }
    }

    /// Where elements `at..at + len` start; panics when they lie outside the slice.
    #[inline(always)]
    pub(super) fn pointer(&self, at: usize, len: usize) -> *mut T {
        assert!(at <= self.len && len <= self.len - at, "part {at}+{len} of {}", self.len);
        self.start.wrapping_add(at)
    }

    /// Elements `at..at + len`; panics when they lie outside the slice.
    ///
    /// # Safety
    /// No other reference to these elements may exist while the result is alive.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(super) unsafe fn slice(&self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: in bounds as `pointer` asserts; unique by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(at, len), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_and_aligned() {
        for count in [1, 100, HUGE] {
            let buffer = Buffer::floats(count, "test").unwrap();
            assert!(buffer.f32s().len() == count && buffer.f32s().iter().all(|&x| x == 0.0));
            assert_eq!(buffer.bytes().as_ptr().align_offset(LINE), 0);
        }
        assert!(Buffer::floats(0, "test").unwrap().f32s().is_empty());
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(matches!(Buffer::new(usize::MAX, 4, "test"), Err(Error::OutOfMemory { what: "test", .. })));
        assert!(matches!(Buffer::new(usize::MAX / 4, 2, "test"), Err(Error::OutOfMemory { .. })));
    }

    #[test]
    fn reserve_grows_only() {
        let mut buffer = Buffer::floats(4, "test").unwrap();
        buffer.reserve(2).unwrap();
        assert_eq!(buffer.f32s().len(), 4);
        buffer.reserve(9).unwrap();
        assert_eq!(buffer.f32s().len(), 9);
    }
}
