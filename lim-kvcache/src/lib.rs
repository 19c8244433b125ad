//! Paged KV cache: a pool of pages, a page table per sequence, fork with copy-on-write, and the per-layer store.
//!
//! A page holds `page_size` tokens of one sequence in every layer, so one page id serves all layers. This crate moves
//! page ids; what lies in a page is written and read by a [`Backend`](lim_kernels::Backend).
//!
//! ```
//! use lim_kernels::{Backend, DType, Heads, KvLayout, PageExtras, PageSize};
//! use lim_kvcache::{KvCache, Result};
//!
//! fn two_answers<B: Backend>(backend: &mut B) -> Result<()> {
//!     let layout = KvLayout { heads: Heads::new(32, 8, 128)?, page_size: PageSize::new(16)?, dtype: DType::BF16 };
//!     let mut cache = KvCache::new(backend, layout, 36, 100, PageExtras::default())?;
//!     let mut first = cache.table();
//!     cache.reserve(backend, &mut first, 40)?; // prefill 40 tokens: 3 pages
//!     let mut second = cache.fork(&first)?; // no copy
//!     cache.reserve(backend, &mut second, 41)?; // copies the third page, then writes go there
//!     assert_eq!(cache.used_pages(), 4);
//!     cache.release(first)?;
//!     cache.release(second)?;
//!     assert_eq!(cache.used_pages(), 0);
//!     Ok(())
//! }
//! ```

mod cache;
mod error;
mod pool;
mod table;

pub use cache::KvCache;
pub use error::{Error, Result};
pub use pool::Pool;
pub use table::PageTable;
