//! Where a sequence's tokens lie.

use std::sync::Arc;

/// Marks the tables of one cache.
pub(crate) type Owner = Arc<()>;

/// A sequence's pages in order: position `t` lies in `pages()[t / page_size]`, slot `t % page_size`.
///
/// Made by [`KvCache::table`](crate::KvCache::table) or [`KvCache::fork`](crate::KvCache::fork), not cloned: every
/// table holds its pages once. Give it back with [`KvCache::release`](crate::KvCache::release): a table that is merely
/// dropped keeps its pages in use. That leak shows as [`KvCache::used_pages`](crate::KvCache::used_pages) above 0
/// where [`KvCache::live_tables`](crate::KvCache::live_tables) is 0.
#[derive(Debug)]
#[must_use = "a dropped table leaks its pages"]
pub struct PageTable {
    pub(crate) owner: Owner,
    pub(crate) pages: Vec<u32>,
    pub(crate) len: usize,
}

impl PageTable {
    /// Physical pages in order; exactly as many as `len` tokens occupy.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Takes host memory for a table of up to `pages` pages, so that growing to that does not allocate.
    pub fn make_room(&mut self, pages: usize) {
        self.pages.reserve(pages.saturating_sub(self.pages.len()));
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
