//! The execution context: device, stream, activation type, scratch.

use std::cell::Cell;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, sys};

use super::Buffer;
use super::gemm::Gemm;
use super::outbox::Outbox;
use super::staging::Staging;
use crate::{DType, Error, Result};

/// What the kernel launched last is, as far as the next one may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Append,
    Attend,
    /// Attention that leaves scores to select by.
    Scored,
    /// A product with room to spare for a selection.
    Beside,
    Other,
}

/// Whose scratch: kernels that may run side by side have each their own.
#[derive(Clone, Copy)]
pub(super) enum Scratch {
    /// Of anything that runs between the kernels before and behind it.
    Common,
    /// Selection's, which may run beside the kernel before it and end behind the one after.
    Select,
    /// Attention's, whose counters every launch leaves at zero.
    Attend,
}

/// One GPU and one stream on it. Kernels run in the order of the calls; calls return before they finish, except
/// those that bring data to the host.
pub struct Cuda {
    pub(super) gemm: Option<Gemm>,
    pub(super) row_list: Option<Buffer<i32>>,
    /// Made with the first weight.
    pub(super) staging: Option<Staging>,
    /// Made with the first step.
    pub(super) outbox: Option<Outbox>,
    invariant: bool,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    dtype: DType,
    name: String,
    /// By [`Scratch`].
    scratch: [Option<Buffer<u8>>; 3],
    last: Cell<Last>,
    /// Whether what is launched next has to wait before it reads what kernels write: the last one lets it start before its
    /// own wait, or has written scores.
    next_waits: Cell<bool>,
    /// Whether append's kernel has been launched since anything wrote to a batch.
    settled: Cell<bool>,
    /// Scratch that was outgrown: captured graphs may still write to it.
    outgrown: Vec<Buffer<u8>>,
}

impl Cuda {
    /// Opens GPU `ordinal`; weights and activations will be of type `dtype`.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no driver, no such GPU, or the driver refuses.
    pub fn new(ordinal: usize, dtype: DType) -> Result<Self> {
        let device = format!("cuda:{ordinal}");
        let failed = |reason: String| Error::Device { device: device.clone(), reason };
        // SAFETY: looks for the driver library and loads it; nothing else uses the handle.
        if !unsafe { sys::is_culib_present() } {
            return Err(failed("no NVIDIA driver on this machine (libcuda was not found)".into()));
        }
        let count = CudaContext::device_count().map_err(|e| failed(words(e)))?;
        if ordinal as i64 >= i64::from(count) {
            return Err(failed(format!("no such GPU: the driver shows {count}")));
        }
        let context = CudaContext::new(ordinal).map_err(|e| failed(words(e)))?;
        // SAFETY: all work of this context goes to the one stream below, so no events between streams are needed;
        // they would also be captured into graphs.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context.compute_capability().map_err(|e| failed(words(e)))?;
        if major < 8 {
            return Err(failed(format!("compute capability {major}.{minor}; the kernels need 8.0 or later")));
        }
        let stream = context.new_stream().map_err(|e| failed(words(e)))?;
        let name = context.name().map_err(|e| failed(words(e)))?;
        let name = format!("{device} ({name})");
        Ok(Cuda {
            gemm: None,
            row_list: None,
            staging: None,
            outbox: None,
            invariant: false,
            context,
            stream,
            dtype,
            name,
            scratch: [const { None }; 3],
            last: Cell::new(Last::Other),
            next_waits: Cell::new(false),
            settled: Cell::new(false),
            outgrown: Vec::new(),
        })
    }

    /// From here on a row's results are the same bits whatever rows are beside it, in decode steps and prefill chunks alike:
    /// every product takes the kernel for few rows, 16 at a time, and attention is cut without regard to the number of
    /// sequences. Slower, by far for prefill and large batches.
    pub fn batch_invariant(mut self) -> Self {
        self.invariant = true;
        self
    }

    pub(super) fn is_batch_invariant(&self) -> bool {
        self.invariant
    }

    /// Type of weights and activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Free and total device memory in bytes.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.context.mem_get_info().map_err(|e| self.driver_error(e))
    }

    /// Waits until everything that was asked for is done.
    ///
    /// # Errors
    /// When a kernel failed since the last wait.
    pub fn synchronize(&mut self) -> Result<()> {
        self.stream.synchronize().map_err(|e| self.driver_error(e))
    }

    /// Compute capability, major and minor.
    pub(super) fn capability(&self) -> Result<(i32, i32)> {
        self.context.compute_capability().map_err(|e| self.driver_error(e))
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The stream as launchers take it, with the context made current for this thread. For every launch anew.
    pub(super) fn launch_stream(&self) -> Result<*mut std::ffi::c_void> {
        self.last.set(Last::Other);
        self.next_waits.set(false);
        self.context.bind_to_thread().map_err(|e| self.driver_error(e))?;
        Ok(self.stream.cu_stream().cast())
    }

    /// Notes that the kernel just launched is append's, which lets the next one start at once if it was `early` itself.
    pub(super) fn note_append(&self, early: bool) {
        self.last.set(Last::Append);
        self.next_waits.set(early);
        self.settled.set(true);
    }

    /// Notes that the kernel just launched is attention's, which lets the next one start at once.
    pub(super) fn note_attend(&self, scored: bool) {
        self.last.set(if scored { Last::Scored } else { Last::Attend });
        self.next_waits.set(true);
    }

    /// Notes that the kernel just launched is a product with room to spare for a selection.
    pub(super) fn note_room(&self) {
        self.last.set(Last::Beside);
    }

    /// Notes that what is launched next has to wait before it reads what kernels write.
    pub(super) fn note_next_waits(&self) {
        self.next_waits.set(true);
    }

    /// Notes that a batch is written to by what is launched now.
    pub(super) fn note_batch_written(&self) {
        self.settled.set(false);
    }

    /// Whether a kernel launched now may read before its wait: the batch, since an append's wait came after what wrote it,
    /// and all that was written before the last kernel, since that one lets others start only behind its own wait.
    pub(super) fn may_read_early(&self) -> bool {
        self.settled.get() && !self.next_waits.get()
    }

    /// The kernel launched last.
    pub(super) fn last(&self) -> Last {
        self.last.get()
    }

    pub(super) fn driver_error(&self, e: DriverError) -> Error {
        Error::Device { device: self.name(), reason: words(e) }
    }

    /// Scratch of at least `bytes` bytes, good until the next launch that uses it: zeroed when made, then with what its
    /// last user left. It grows when first asked for more, which must not happen during graph capture: run the step once
    /// before capturing it.
    pub(super) fn scratch(&mut self, of: Scratch, bytes: usize) -> Result<*mut u8> {
        let buffer = match self.scratch[of as usize].take() {
            Some(buffer) if buffer.len() >= bytes => buffer,
            old => {
                let bytes = bytes.max(2 * old.as_ref().map_or(0, |b| b.len()));
                self.outgrown.extend(old);
                self.zeros(bytes, "scratch")?
            }
        };
        Ok(self.scratch[of as usize].insert(buffer).ptr())
    }
}

fn words(e: DriverError) -> String {
    let name = e.error_name().ok().and_then(|s| s.to_str().ok());
    let text = e.error_string().ok().and_then(|s| s.to_str().ok());
    match (name, text) {
        (Some(name), Some(text)) => format!("{text} ({name})"),
        _ => format!("CUDA driver error {}", e.0 as u32),
    }
}
