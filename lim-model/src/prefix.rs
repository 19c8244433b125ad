//! Prompts whose pages are kept, so that a prompt that begins like one of them is computed from where they part.
//!
//! Prefill is dense under every policy, so a prompt token's keys and values depend on nothing but the tokens up to it.

use std::sync::Arc;

use lim_kernels::Backend;
use lim_kvcache::{KvCache, PageTable};

use crate::Result;
use crate::sequence::Shared;

/// Whole pages of prompts, running or finished. None is the beginning of another, so each has a last page that no other
/// kept prompt holds.
#[derive(Debug)]
pub(crate) struct Prompts {
    /// Least recently used first.
    kept: Vec<Kept>,
    most: usize,
    /// Kept prompts that hold each page.
    holders: Vec<u32>,
}

#[derive(Debug)]
struct Kept {
    prompt: Arc<Shared>,
    /// Whole pages of the prompt.
    table: PageTable,
}

impl Kept {
    fn tokens(&self) -> &[u32] {
        &self.prompt.prompt[..self.table.len()]
    }
}

impl Prompts {
    /// Keeps at most `most` prompts in a cache of `pages` pages.
    pub(crate) fn new(most: usize, pages: usize) -> Self {
        Prompts { kept: Vec::new(), most, holders: vec![0; if most == 0 { 0 } else { pages }] }
    }

    /// A table that shares the pages of the longest beginning of `prompt` that is kept, of at most `most` tokens.
    pub(crate) fn begin<B: Backend>(
        &mut self,
        cache: &mut KvCache<B>,
        prompt: &[u32],
        most: usize,
    ) -> Result<PageTable> {
        let prompt = &prompt[..most.min(prompt.len())];
        let page = cache.layout().page_size.tokens();
        let common = |kept: &Kept| {
            let equal = kept.tokens().iter().zip(prompt).take_while(|(a, b)| a == b).count();
            equal / page * page
        };
        let best = self.kept.iter().map(common).enumerate().max_by_key(|&(_, tokens)| tokens);
        let Some((index, tokens)) = best.filter(|&(_, tokens)| tokens > 0) else { return Ok(cache.table()) };
        self.kept[index..].rotate_left(1);
        let Some(used) = self.kept.last() else { return Ok(cache.table()) };
        let mut table = cache.fork(&used.table)?;
        cache.truncate(&mut table, tokens)?;
        Ok(table)
    }

    /// Keeps the whole pages of a prompt that `table` holds.
    pub(crate) fn keep<B: Backend>(
        &mut self,
        cache: &mut KvCache<B>,
        prompt: &Arc<Shared>,
        table: &PageTable,
    ) -> Result<()> {
        let page = cache.layout().page_size.tokens();
        let len = prompt.prompt.len() / page * page;
        if self.most == 0 || len == 0 {
            return Ok(());
        }
        let tokens = &prompt.prompt[..len];
        if let Some(index) = self.kept.iter().position(|kept| kept.tokens().starts_with(tokens)) {
            self.kept[index..].rotate_left(1);
            return Ok(());
        }
        while let Some(index) = self.kept.iter().position(|kept| tokens.starts_with(kept.tokens())) {
            self.drop_at(cache, index)?;
        }
        if self.kept.len() == self.most {
            self.drop_at(cache, 0)?;
        }
        let mut table = cache.fork(table)?;
        cache.truncate(&mut table, len)?;
        for &page in table.pages() {
            self.holders[page as usize] += 1;
        }
        self.kept.push(Kept { prompt: Arc::clone(prompt), table });
        Ok(())
    }

    /// Pages that would be free without kept prompts.
    pub(crate) fn idle<B: Backend>(&self, cache: &KvCache<B>) -> usize {
        let idle = |(page, &kept): (usize, &u32)| kept > 0 && cache.pool().holders(page as u32) == kept;
        self.holders.iter().enumerate().filter(|&page| idle(page)).count()
    }

    /// Gives up the least recently used prompt that frees a page; false where none does.
    pub(crate) fn evict<B: Backend>(&mut self, cache: &mut KvCache<B>) -> Result<bool> {
        // A sequence that holds a prompt's last page holds all of them.
        let frees =
            |kept: &Kept| kept.table.pages().last().is_some_and(|&page| cache.pool().holders(page) == 1);
        match self.kept.iter().position(frees) {
            Some(index) => self.drop_at(cache, index).map(|()| true),
            None => Ok(false),
        }
    }

    /// Gives up all prompts.
    pub(crate) fn clear<B: Backend>(&mut self, cache: &mut KvCache<B>) -> Result<()> {
        while !self.kept.is_empty() {
            self.drop_at(cache, 0)?;
        }
        Ok(())
    }

    /// Grows a table as [`KvCache::reserve`] does, and gives up kept prompts where pages run out.
    pub(crate) fn reserve<B: Backend>(
        &mut self,
        cache: &mut KvCache<B>,
        backend: &mut B,
        table: &mut PageTable,
        new_len: usize,
    ) -> Result<()> {
        loop {
            match cache.reserve(backend, table, new_len) {
                Err(lim_kvcache::Error::OutOfPages { .. }) if self.evict(cache)? => {}
                other => return Ok(other?),
            }
        }
    }

    fn drop_at<B: Backend>(&mut self, cache: &mut KvCache<B>, index: usize) -> Result<()> {
        let Kept { table, .. } = self.kept.remove(index);
        for &page in table.pages() {
            self.holders[page as usize] -= 1;
        }
        Ok(cache.release(table)?)
    }
}
