//! `--device`: the one place that knows which backends this build has.

use std::fmt::Display;
use std::num::NonZeroUsize;

use lim_kernels::cpu::Cpu;
use lim_kernels::{Backend, DType};

use crate::args::DeviceArg;
use crate::console::Console;
use crate::error::{Error, Result};
use crate::machine::Machine;

/// Work that runs on whichever backend is chosen.
pub(crate) trait Job {
    /// What it comes to.
    type Out;

    /// Does it.
    fn run<B: Machine>(self, backend: B) -> Result<Self::Out>;
}

/// The device asked for, with what its backend is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    pub(crate) device: DeviceArg,
    /// Of the CPU.
    pub(crate) threads: Option<NonZeroUsize>,
    /// Weights and activations of a GPU.
    pub(crate) dtype: DType,
}

impl Device {
    /// Makes the backend and runs `job` on it. `auto` is the first GPU where it can be used, else the CPU, and says so.
    ///
    /// # Errors
    /// A usage error when this build has no such backend; else what the device or the job fails with.
    pub(crate) fn run<J: Job>(self, console: Console, job: J) -> Result<J::Out> {
        match self.device {
            DeviceArg::Cpu => job.run(cpu(self.threads)?),
            DeviceArg::Auto => self.auto(console, job),
            DeviceArg::Cuda(ordinal) => cuda(ordinal, self.dtype, job),
        }
    }

    #[cfg(feature = "cuda")]
    fn auto<J: Job>(self, console: Console, job: J) -> Result<J::Out> {
        match lim_kernels::cuda::Cuda::new(0, self.dtype) {
            Ok(backend) => {
                console.item("device", format_args!("auto picked {}", backend.device()));
                job.run(backend)
            }
            Err(reason) => self.auto_cpu(console, job, reason),
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn auto<J: Job>(self, console: Console, job: J) -> Result<J::Out> {
        self.auto_cpu(console, job, "this build has no CUDA")
    }

    /// `reason`: why not a GPU.
    fn auto_cpu<J: Job>(self, console: Console, job: J, reason: impl Display) -> Result<J::Out> {
        let backend = cpu(self.threads)?;
        console.item("device", format_args!("auto picked {}; {reason}", backend.device()));
        job.run(backend)
    }
}

#[cfg(feature = "cuda")]
fn cuda<J: Job>(ordinal: usize, dtype: DType, job: J) -> Result<J::Out> {
    job.run(lim_kernels::cuda::Cuda::new(ordinal, dtype)?)
}

#[cfg(not(feature = "cuda"))]
fn cuda<J: Job>(ordinal: usize, _: DType, _: J) -> Result<J::Out> {
    Err(Error::usage(format!(
        "--device cuda:{ordinal}: this build has no CUDA. Use --device cpu, or build with the CUDA compiler \
         (scripts/cuda-toolkit.sh fetches it): cargo build --release -p lim-cli --features cuda"
    )))
}

/// The GPU this build could use, or why it cannot.
#[cfg(feature = "cuda")]
pub(crate) fn gpu() -> String {
    let found = lim_kernels::cuda::Cuda::new(0, DType::BF16).and_then(|cuda| {
        Ok(format!("{}, {} free", cuda.device(), crate::report::bytes(cuda.memory()?.0 as u64)))
    });
    found.unwrap_or_else(|error| error.to_string())
}

/// The GPU this build could use, or why it cannot.
#[cfg(not(feature = "cuda"))]
pub(crate) fn gpu() -> String {
    let driver = if std::path::Path::new("/proc/driver/nvidia/version").exists() {
        "NVIDIA driver found, but this build has no CUDA"
    } else {
        "no NVIDIA driver, and this build has no CUDA"
    };
    format!("{driver} (cargo build --release -p lim-cli --features cuda)")
}

/// The CPU backend.
pub(crate) fn cpu(threads: Option<NonZeroUsize>) -> Result<Cpu> {
    match threads {
        Some(n) => Cpu::new(Some(n.get())).map_err(|e| Error::Usage(format!("--threads {n}: {e}"))),
        None => Ok(Cpu::new(None)?),
    }
}
