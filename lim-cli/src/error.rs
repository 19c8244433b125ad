//! What can go wrong, and the exit code of each kind.

use std::path::PathBuf;

/// An error of the command line. Messages of the libraries below are passed on as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command cannot mean anything: exit code 2.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Kernel(#[from] lim_kernels::Error),
    #[error(transparent)]
    Model(#[from] lim_model::Error),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Failed(String),
    #[error("interrupted")]
    Interrupted,
    /// Whoever read stdout has gone: not worth a message.
    #[error("stdout is closed")]
    OutputClosed,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Error::Usage(message.into())
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }

    /// The kernel's or device's own error, whichever crate passed it on.
    pub(crate) fn kernel(&self) -> Option<&lim_kernels::Error> {
        match self {
            Error::Kernel(error) => Some(error),
            Error::Model(error) => error.kernel(),
            _ => None,
        }
    }

    /// 0 done, 1 failed, 2 bad usage.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::OutputClosed => 0,
            _ => 1,
        }
    }
}
