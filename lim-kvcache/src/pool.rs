//! Which pages are held, and by how many tables.

use crate::{Error, Result};

/// Page ids `0..total` with reference counts. A page is either free or held at least once.
#[derive(Debug)]
pub struct Pool {
    /// Holders of each page; 0 is free.
    holders: Vec<u32>,
    /// Free pages; the last is taken next.
    free: Vec<u32>,
}

impl Pool {
    /// `total` free pages; they are first taken in ascending order.
    ///
    /// # Errors
    /// When `total` exceeds `u32::MAX`.
    pub fn new(total: usize) -> Result<Self> {
        let end = u32::try_from(total).map_err(|_| Error::TooManyPages { pages: total })?;
        Ok(Pool { holders: vec![0; total], free: (0..end).rev().collect() })
    }

    /// Takes `count` pages, each held once, and appends them to `to`.
    ///
    /// # Errors
    /// [`Error::OutOfPages`] when fewer are free; then nothing is taken.
    pub fn take(&mut self, count: usize, to: &mut Vec<u32>) -> Result<()> {
        let (free, total) = (self.free(), self.total());
        let Some(keep) = free.checked_sub(count) else {
            return Err(Error::OutOfPages { asked: count, free, total });
        };
        let start = to.len();
        to.extend(self.free.drain(keep..).rev());
        for &page in &to[start..] {
            self.holders[page as usize] = 1;
        }
        Ok(())
    }

    /// Adds a holder to a held page.
    ///
    /// # Errors
    /// When the page is free or unknown.
    pub fn share(&mut self, page: u32) -> Result<()> {
        *self.held(page)? += 1;
        Ok(())
    }

    /// Removes a holder; the page is free once it has none.
    ///
    /// # Errors
    /// When the page is free already, or unknown.
    pub fn give_back(&mut self, page: u32) -> Result<()> {
        let holders = self.held(page)?;
        *holders -= 1;
        if *holders == 0 {
            self.free.push(page);
        }
        Ok(())
    }

    /// Holders of a page, 0 where it is free or unknown.
    pub fn holders(&self, page: u32) -> u32 {
        self.holders.get(page as usize).copied().unwrap_or(0)
    }

    /// Free pages.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// All pages.
    pub fn total(&self) -> usize {
        self.holders.len()
    }

    fn held(&mut self, page: u32) -> Result<&mut u32> {
        let total = self.total();
        match self.holders.get_mut(page as usize) {
            Some(holders) if *holders > 0 => Ok(holders),
            _ => Err(Error::NotInUse { page, total }),
        }
    }
}
