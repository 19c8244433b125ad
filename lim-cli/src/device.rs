//! `--device`: the one place that knows which backends this build has.

use std::num::NonZeroUsize;

use lim_kernels::Backend;
use lim_kernels::cpu::Cpu;

use crate::args::DeviceArg;
use crate::console::Console;
use crate::error::{Error, Result};

/// Work that runs on whichever backend is chosen.
pub(crate) trait Job {
    /// What it comes to.
    type Out;

    /// Does it.
    fn run<B: Backend>(self, backend: B) -> Result<Self::Out>;
}

/// Makes the backend that `device` names and runs `job` on it. `auto` says what it picked.
///
/// # Errors
/// A usage error when this build has no such backend; else what the job fails with.
pub(crate) fn with_backend<J: Job>(
    device: DeviceArg,
    threads: Option<NonZeroUsize>,
    console: Console,
    job: J,
) -> Result<J::Out> {
    match device {
        DeviceArg::Cpu => job.run(cpu(threads)?),
        DeviceArg::Auto => {
            let backend = cpu(threads)?;
            console.note(format_args!("device     auto picked {}: {NO_GPU_ENGINE}", backend.device()));
            job.run(backend)
        }
        DeviceArg::Cuda(_) => Err(Error::usage(format!(
            "--device cuda: {NO_GPU_ENGINE}; use --device cpu. The CUDA kernels are a library so far: \
             cargo build --release -p lim-kernels --features cuda"
        ))),
    }
}

/// Why a GPU is never picked.
pub(crate) const NO_GPU_ENGINE: &str = "this version has no engine for GPUs";

/// The CPU backend.
pub(crate) fn cpu(threads: Option<NonZeroUsize>) -> Result<Cpu> {
    match threads {
        Some(n) => Cpu::new(Some(n.get())).map_err(|e| Error::Usage(format!("--threads {n}: {e}"))),
        None => Ok(Cpu::new(None)?),
    }
}

/// Threads of the CPU backend: as asked for, otherwise one a core.
pub(crate) fn cpu_threads(asked: Option<NonZeroUsize>) -> usize {
    asked.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}
