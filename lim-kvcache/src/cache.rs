//! The store of all layers, and the operations on sequences.

use std::sync::Arc;

use lim_kernels::{Backend, KvLayout, PageExtras};

use crate::{Error, PageTable, Pool, Result, table::Owner};

/// The pages of all layers of one model, and who holds them.
pub struct KvCache<B: Backend> {
    layout: KvLayout,
    extras: PageExtras,
    layers: Vec<B::Kv>,
    pool: Pool,
    owner: Owner,
    /// Pages on their way from the pool to a table; empty between calls.
    taken: Vec<u32>,
}

impl<B: Backend> KvCache<B> {
    /// Room for `pages` pages in each of `layers` layers, and for `extras` beside each of them.
    ///
    /// # Errors
    /// When the backend has not the memory, or `pages` exceeds 32-bit ids.
    pub fn new(
        backend: &mut B,
        layout: KvLayout,
        layers: usize,
        pages: usize,
        extras: PageExtras,
    ) -> Result<Self> {
        let pool = Pool::new(pages)?;
        let layers = (0..layers).map(|_| backend.kv(layout, pages, extras)).collect::<Result<_, _>>()?;
        Ok(KvCache { layout, extras, layers, pool, owner: Owner::default(), taken: Vec::new() })
    }

    /// A sequence without tokens.
    pub fn table(&self) -> PageTable {
        PageTable { owner: Arc::clone(&self.owner), pages: Vec::new(), len: 0 }
    }

    /// Grows a sequence to `new_len` tokens so that positions `table.len() .. new_len` may be written.
    ///
    /// Where the first of them falls into a page that another table holds too, that page is copied first, in every
    /// layer (copy-on-write).
    ///
    /// # Errors
    /// [`Error::OutOfPages`], a failed copy, a foreign table, or a `new_len` below the present length. The table and
    /// the pool are then as they were.
    pub fn reserve(&mut self, backend: &mut B, table: &mut PageTable, new_len: usize) -> Result<()> {
        self.check_owner(table)?;
        if new_len < table.len {
            return Err(Error::Length { op: "reserve", got: new_len, must: "at least", len: table.len });
        }
        let shared = self.shared_page_to_write(table, new_len);
        let growth = self.layout.page_size.pages_for(new_len) - table.pages.len();
        self.pool.take(growth + usize::from(shared.is_some()), &mut self.taken)?;
        if let Some(from) = shared {
            if let Err(error) = self.copy_page(backend, from, self.taken[0]) {
                // Backwards, so that the free list is in its old order too.
                while let Some(page) = self.taken.pop() {
                    self.pool.give_back(page)?;
                }
                return Err(error);
            }
            self.pool.give_back(from)?;
            table.pages.pop();
        }
        table.pages.append(&mut self.taken);
        table.len = new_len;
        Ok(())
    }

    /// Shortens a sequence to `len` tokens and gives back the pages that fall out of use.
    ///
    /// What remains of a partly used page stays where it is, shared or not; Quest's bounds of that page keep covering
    /// the dropped keys, so they stay valid upper bounds but are no longer tight. Its gate is of no use until it is full
    /// again, which makes a new one.
    ///
    /// # Errors
    /// When `len` exceeds the present length, or the table is foreign.
    pub fn truncate(&mut self, table: &mut PageTable, len: usize) -> Result<()> {
        self.check_owner(table)?;
        if len > table.len {
            return Err(Error::Length { op: "truncate", got: len, must: "at most", len: table.len });
        }
        for page in table.pages.drain(self.layout.page_size.pages_for(len)..).rev() {
            self.pool.give_back(page)?;
        }
        table.len = len;
        Ok(())
    }

    /// A second sequence with the same tokens. Shares all pages, copies nothing.
    ///
    /// # Errors
    /// When the table is foreign.
    pub fn fork(&mut self, table: &PageTable) -> Result<PageTable> {
        self.check_owner(table)?;
        for &page in &table.pages {
            self.pool.share(page)?;
        }
        Ok(PageTable { owner: Arc::clone(&self.owner), pages: table.pages.clone(), len: table.len })
    }

    /// Ends a sequence and gives its pages back.
    ///
    /// # Errors
    /// When the table is foreign; it is lost then, and so are its pages.
    pub fn release(&mut self, mut table: PageTable) -> Result<()> {
        self.truncate(&mut table, 0)
    }

    /// Page layout of every layer.
    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    /// What is kept beside every page.
    pub fn extras(&self) -> PageExtras {
        self.extras
    }

    /// The layers' pages, first layer first.
    pub fn layers(&self) -> &[B::Kv] {
        &self.layers
    }

    /// One layer's pages, to write.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn layer_mut(&mut self, layer: usize) -> &mut B::Kv {
        &mut self.layers[layer]
    }

    /// Who holds which page.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Tables made and not yet released (or dropped).
    pub fn live_tables(&self) -> usize {
        Arc::strong_count(&self.owner) - 1
    }

    /// Pages that can be taken.
    pub fn free_pages(&self) -> usize {
        self.pool.free()
    }

    /// Pages held by tables. Without live tables, anything but 0 is a leak.
    pub fn used_pages(&self) -> usize {
        self.pool.total() - self.pool.free()
    }

    /// Bytes of keys and values of all pages in all layers. What is kept beside them comes on top.
    pub fn bytes(&self) -> usize {
        self.pool.total() * self.layout.page_size.tokens() * self.bytes_per_token()
    }

    /// Bytes of one token's keys and values in all layers.
    pub fn bytes_per_token(&self) -> usize {
        self.layers.len() * self.layout.token_bytes()
    }

    /// The page that holds position `len`, if it holds earlier tokens of this table and another table holds it too.
    fn shared_page_to_write(&self, table: &PageTable, new_len: usize) -> Option<u32> {
        let partial = !table.len.is_multiple_of(self.layout.page_size.tokens());
        let last = *table.pages.last()?;
        (new_len > table.len && partial && self.pool.holders(last) > 1).then_some(last)
    }

    fn copy_page(&mut self, backend: &mut B, from: u32, to: u32) -> Result<()> {
        for kv in &mut self.layers {
            backend.copy_page(kv, from, to)?;
        }
        Ok(())
    }

    fn check_owner(&self, table: &PageTable) -> Result<()> {
        if Arc::ptr_eq(&self.owner, &table.owner) { Ok(()) } else { Err(Error::ForeignTable) }
    }
}
