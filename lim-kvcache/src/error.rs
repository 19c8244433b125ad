//! The one error type of this crate.

/// What the cache can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pool has too few free pages. Nothing has changed: release a sequence and try again.
    #[error("out of KV pages: asked for {asked}, {free} of {total} free")]
    OutOfPages {
        /// Pages asked for.
        asked: usize,
        /// Pages free.
        free: usize,
        /// Pages of the pool.
        total: usize,
    },
    /// A page is given back or shared that nobody holds.
    #[error("page {page} is not in use in a pool of {total} pages")]
    NotInUse {
        /// Page id.
        page: u32,
        /// Pages of the pool.
        total: usize,
    },
    /// The table was made by another cache.
    #[error("the page table belongs to another cache")]
    ForeignTable,
    /// A length that the operation does not take.
    #[error("{op}: new length {got}, must be {must} the present length {len}")]
    Length {
        /// `reserve` or `truncate`.
        op: &'static str,
        /// Length asked for.
        got: usize,
        /// `at least` or `at most`.
        must: &'static str,
        /// Length of the table.
        len: usize,
    },
    /// Page ids are 32 bits wide.
    #[error("{pages} pages do not fit 32-bit page ids")]
    TooManyPages {
        /// Pages asked for.
        pages: usize,
    },
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] lim_kernels::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
