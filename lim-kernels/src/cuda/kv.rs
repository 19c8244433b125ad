//! Pages on the device.

use cudarc::driver::DevicePtr;

use super::check::shape_error;
use super::{Buffer, Cuda, CudaBatch, ffi};
use crate::{DType, Error, Heads, KvLayout, PageExtras, Result};

/// One layer's pages.
pub struct CudaKv {
    pages: Buffer<u8>,
    bounds: Option<Buffer<u8>>,
    gates: Option<Buffer<u8>>,
    layout: KvLayout,
    count: usize,
}

impl CudaKv {
    pub(super) fn raw(&self) -> ffi::lim_kv {
        let KvLayout { heads, page_size, dtype } = self.layout;
        let beside =
            |buffer: &Option<Buffer<u8>>| buffer.as_ref().map_or(std::ptr::null_mut(), |b| b.ptr().cast());
        ffi::lim_kv {
            pages: self.pages.ptr().cast(),
            bounds: beside(&self.bounds),
            gates: beside(&self.gates),
            dtype: dtype_code(dtype),
            page_size: page_size.tokens() as i32,
            kv_heads: heads.kv() as i32,
            head_dim: heads.dim() as i32,
        }
    }

    pub(super) fn layout(&self) -> KvLayout {
        self.layout
    }

    /// Checks that the step fits these pages and heads.
    pub(super) fn expect(&self, op: &'static str, heads: Heads, batch: &CudaBatch) -> Result<()> {
        let list = |h: Heads| [h.query(), h.kv(), h.dim()];
        if self.layout.heads != heads {
            return Err(shape_error(
                op,
                "heads (query, kv, head_dim)",
                &list(heads),
                &list(self.layout.heads),
            ));
        }
        if self.layout.page_size != batch.page_size() {
            let [mine, theirs] = [self.layout.page_size, batch.page_size()].map(|p| [p.tokens()]);
            return Err(shape_error(op, "page size of the batch", &theirs, &mine));
        }
        if batch.pages_named() > self.count {
            let must = format!("below the {} pages", self.count);
            return Err(Error::Range { op, what: "page id", got: batch.pages_named() as u64 - 1, must });
        }
        Ok(())
    }
}

impl Cuda {
    pub(super) fn make_kv(&mut self, layout: KvLayout, count: usize, extras: PageExtras) -> Result<CudaKv> {
        let PageExtras { bounds, gates } = extras;
        let (bytes, width) = (layout.dtype.bytes(), layout.token_width());
        let mut room = |elements, what| self.zeros(count.saturating_mul(elements * bytes), what);
        let pages = room(layout.page_elements(), "KV pages")?;
        let bounds = bounds.then(|| room(2 * width, "page bounds")).transpose()?;
        let gates = gates.then(|| room(width, "page gates")).transpose()?;
        Ok(CudaKv { pages, bounds, gates, layout, count })
    }

    pub(super) fn copy_kv_page(&mut self, kv: &mut CudaKv, from: u32, to: u32) -> Result<()> {
        for (what, page) in [("page to copy from", from), ("page to copy to", to)] {
            if page as usize >= kv.count {
                let must = format!("below the {} pages", kv.count);
                return Err(Error::Range { op: "copy page", what, got: u64::from(page), must });
            }
        }
        let bytes = kv.layout.dtype.bytes();
        let width = kv.layout.token_width() * bytes;
        self.copy_within(&kv.pages, kv.layout.page_elements() * bytes, from, to)?;
        for (beside, page) in [(&kv.bounds, 2 * width), (&kv.gates, width)] {
            if let Some(buffer) = beside {
                self.copy_within(buffer, page, from, to)?;
            }
        }
        Ok(())
    }

    /// Copies block `from` of `bytes` bytes over block `to`; both lie inside `buffer`.
    fn copy_within(&mut self, buffer: &Buffer<u8>, bytes: usize, from: u32, to: u32) -> Result<()> {
        if from == to {
            return Ok(());
        }
        self.launch_stream()?;
        let base = buffer.slice().device_ptr(self.stream()).0;
        let at = |block: u32| base + u64::from(block) * bytes as u64;
        // SAFETY: the caller checked both blocks against the buffer's length, and they are different blocks.
        let copied = unsafe {
            cudarc::driver::result::memcpy_dtod_async(at(to), at(from), bytes, self.stream().cu_stream())
        };
        copied.map_err(|e| self.driver_error(e))
    }
}

/// `LIM_F32`, `LIM_F16` or `LIM_BF16`.
pub(super) fn dtype_code(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => ffi::LIM_F32,
        DType::F16 => ffi::LIM_F16,
        DType::BF16 => ffi::LIM_BF16,
    }
}
