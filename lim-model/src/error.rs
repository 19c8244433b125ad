//! The one error type of this crate.

use std::path::PathBuf;

use lim_kernels::DType;

/// What loading or running a model can refuse. Every message names the file, key or tensor and the values that clash.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A model lacks a file it needs.
    #[error("{model}: no {file}")]
    MissingFile {
        /// Model directory or name.
        model: String,
        /// File or files looked for.
        file: String,
    },
    /// A file is not what its name says.
    #[error("{file}: {reason}")]
    Malformed {
        /// File.
        file: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A value in a JSON file is missing, of the wrong type or out of range.
    #[error("{file}: {key} is {found}, must be {must}")]
    Value {
        /// File.
        file: String,
        /// Path of the key, such as `rope_scaling.factor`.
        key: String,
        /// The value as JSON, or `missing`.
        found: String,
        /// The rule it breaks, in words.
        must: String,
    },
    /// The model asks for something this crate does not do.
    #[error("{file}: {what} `{found}` is not supported ({supported})")]
    Unsupported {
        /// File that asks for it.
        file: String,
        /// What it is: an architecture, a rope type, a key.
        what: String,
        /// The value asked for.
        found: String,
        /// What is supported instead.
        supported: String,
    },
    /// A tensor that the config calls for is not in the checkpoint.
    #[error("tensor {tensor} is missing from {file}")]
    MissingTensor {
        /// Tensor name.
        tensor: String,
        /// File or checkpoint where it was looked for.
        file: String,
    },
    /// A tensor's shape is not what the config calls for.
    #[error("{file}: tensor {tensor} has shape {found:?}, the config calls for {expected:?}")]
    TensorShape {
        /// Tensor name.
        tensor: String,
        /// File that holds it.
        file: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape by the config.
        expected: Vec<usize>,
    },
    /// A tensor's element type is not one of f32, f16 and bf16.
    #[error("{file}: tensor {tensor} holds {found} elements, expected F32, F16 or BF16")]
    TensorDType {
        /// Tensor name.
        tensor: String,
        /// File that holds it.
        file: String,
        /// Type in the file.
        found: String,
    },
    /// A weight type that weights cannot be converted to.
    #[error("weights cannot be converted to {to}, only to f32 or bf16")]
    Convert {
        /// Type asked for.
        to: DType,
    },
    /// The tokenizer failed.
    #[error("tokenizer: {reason}")]
    Tokenize {
        /// What failed.
        reason: String,
    },
    /// The chat template raised an exception or failed.
    #[error("chat template: {reason}")]
    Template {
        /// The template's words, or the engine's.
        reason: String,
    },
    /// A model cannot be had from the hub or its cache.
    #[error("{model}: {reason}")]
    Hub {
        /// Model name.
        model: String,
        /// Why, and what would help.
        reason: String,
    },
    /// A request, or an engine's size, that cannot be met.
    #[error("{what} {reason}")]
    Request {
        /// What is wrong, such as `prompt`.
        what: &'static str,
        /// Its value and the rule it breaks.
        reason: String,
    },
    /// The caller's cancel flag was set.
    #[error("interrupted")]
    Interrupted,
    /// A kernel or a device refused.
    #[error(transparent)]
    Kernel(#[from] lim_kernels::Error),
    /// The KV cache refused.
    #[error(transparent)]
    Cache(#[from] lim_kvcache::Error),
    /// A selection policy or its buffers refused.
    #[error(transparent)]
    Select(#[from] lim_select::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The kernel's or device's own error, whichever crate passed it on.
    pub fn kernel(&self) -> Option<&lim_kernels::Error> {
        match self {
            Error::Kernel(error)
            | Error::Cache(lim_kvcache::Error::Backend(error))
            | Error::Select(lim_select::Error::Backend(error)) => Some(error),
            _ => None,
        }
    }

    /// Wraps an input/output error with its path.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
