//! A step captured once and replayed, and device time.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cudarc::driver::{CudaGraph, CudaStream, sys};

use super::Cuda;
use crate::{Error, Result};

/// Held by every capture of this process. A capture notes what its own thread asks for, but any thread that waits for the whole
/// device ends it (CUDA error 901), which cublasLt's manual says of dropping a handle. Making one is kept apart too.
static CAPTURES: RwLock<()> = RwLock::new(());

/// Does something that would end the captures of other threads, when there are none.
///
/// Within a capture of the same thread it would wait for ever.
pub(super) fn outside_captures<T>(work: impl FnOnce() -> T) -> T {
    let _alone = CAPTURES.write().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// A recorded sequence of kernels. It reads and writes the buffers that it was recorded with, which must outlive it.
pub struct Graph {
    graph: CudaGraph,
    stream: Arc<CudaStream>,
}

impl Drop for Graph {
    fn drop(&mut self) {
        // It may be running. A failure shows in the call that waits for results.
        let _ = self.stream.synchronize();
    }
}

impl Cuda {
    /// Records what `step` launches instead of running it.
    ///
    /// `step` must have run once before, so that scratch has its size, and must not allocate, upload or read back.
    ///
    /// # Errors
    /// When `step` fails or does something that cannot be recorded.
    pub fn capture<E: From<Error>>(
        &mut self,
        step: impl FnOnce(&mut Cuda) -> Result<(), E>,
    ) -> Result<Graph, E> {
        let _among_others = CAPTURES.read().unwrap_or_else(PoisonError::into_inner);
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream().begin_capture(mode).map_err(|e| self.driver_error(e))?;
        let recorded = step(self);
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.stream().end_capture(flags);
        recorded?;
        match graph.map_err(|e| self.driver_error(e))? {
            Some(graph) => Ok(Graph { graph, stream: Arc::clone(self.stream()) }),
            None => {
                let reason = "the capture recorded nothing".into();
                Err(Error::Device { device: self.name(), reason }.into())
            }
        }
    }

    /// Runs a recorded step.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn replay(&mut self, graph: &Graph) -> Result<()> {
        graph.graph.launch().map_err(|e| self.driver_error(e))
    }

    /// Time on the device from the start of the first thing that `work` launches to the end of the last; waits for it.
    ///
    /// # Errors
    /// When `work` fails or the driver refuses.
    pub fn elapsed(&mut self, work: impl FnOnce(&mut Cuda) -> Result<()>) -> Result<Duration> {
        let record = |cuda: &Cuda| {
            let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
            cuda.stream().record_event(flags).map_err(|e| cuda.driver_error(e))
        };
        let start = record(self)?;
        work(self)?;
        let end = record(self)?;
        let ms = start.elapsed_ms(&end).map_err(|e| self.driver_error(e))?;
        Ok(Duration::from_secs_f64(f64::from(ms) / 1e3))
    }
}
