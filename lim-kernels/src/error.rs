//! The one error type of this crate.

use crate::DType;

/// What a kernel or an allocation can refuse. Every message names the operand and the values that clash.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operand's shape does not fit the operation.
    #[error("{op}: {operand} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Operation that was asked for.
        op: &'static str,
        /// Operand that does not fit.
        operand: &'static str,
        /// Shape that was passed.
        got: Vec<usize>,
        /// Shape that the other operands call for.
        expected: Vec<usize>,
    },
    /// A size, count or index is out of the range an operation takes.
    #[error("{op}: {what} is {got}, must be {must}")]
    Range {
        /// Operation that was asked for.
        op: &'static str,
        /// The value's name.
        what: &'static str,
        /// The value.
        got: u64,
        /// The rule it breaks, in words.
        must: String,
    },
    /// A setting is out of the range an operation takes.
    #[error("{op}: {what} is {got}, must be {must}")]
    Value {
        /// Operation that was asked for.
        op: &'static str,
        /// The setting's name.
        what: &'static str,
        /// Its value.
        got: f64,
        /// The rule it breaks, in words.
        must: &'static str,
    },
    /// A value that must be a number (or at least not NaN) is not.
    #[error("{op}: {operand} holds {value} at row {row}, element {index}")]
    NotFinite {
        /// Operation that was asked for.
        op: &'static str,
        /// Operand that holds the value.
        operand: &'static str,
        /// Row of the operand.
        row: usize,
        /// Element of the row.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The operation has no kernel for this element type.
    #[error("{op}: no kernel for {dtype}")]
    DType {
        /// Operation that was asked for.
        op: &'static str,
        /// Element type of the operand.
        dtype: DType,
    },
    /// Memory could not be had.
    #[error("out of memory on {device}: {bytes} bytes for {what}{}", free.map_or(String::new(), |f| format!(", {f} free")))]
    OutOfMemory {
        /// Device that refused.
        device: String,
        /// Bytes asked for.
        bytes: usize,
        /// Bytes free, where the device says.
        free: Option<usize>,
        /// What they were for.
        what: &'static str,
    },
    /// The device cannot be used: no driver, no such ordinal, or a failed call.
    #[error("{device}: {reason}")]
    Device {
        /// Device that failed.
        device: String,
        /// The driver's or library's words.
        reason: String,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
