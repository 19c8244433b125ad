//! How fast this machine's cores read memory: the yardstick of decode speed.

use std::hint::black_box;
use std::time::Instant;

/// Far beyond any last-level cache.
const BYTES: usize = 512 << 20;

/// Memory to read, and the best speed so far. Other work on the machine only ever makes a reading slower, so readings
/// taken between the tests of a run tell what the run could have had at best.
pub(crate) struct Yardstick {
    words: Vec<u64>,
    threads: usize,
    best_s: f64,
}

impl Yardstick {
    /// A yardstick read by `threads` threads, after a few readings.
    pub(crate) fn new(threads: usize) -> Self {
        let mut yardstick =
            Yardstick { words: vec![1; BYTES / 8], threads: threads.max(1), best_s: f64::INFINITY };
        (0..4).for_each(|_| yardstick.read());
        yardstick
    }

    /// Reads once more: plain loads in order, each thread its own part.
    pub(crate) fn read(&mut self) {
        let part = self.words.len().div_ceil(self.threads);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for part in self.words.chunks(part) {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        self.best_s = self.best_s.min(begun.elapsed().as_secs_f64());
    }

    /// Gigabytes a second of the best reading.
    pub(crate) fn gb_per_s(&self) -> f64 {
        BYTES as f64 / self.best_s / 1e9
    }
}

/// Eight sums side by side, so that no addition waits for another.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 8];
    for eight in words.chunks_exact(8) {
        for (sum, word) in sums.iter_mut().zip(eight) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}
