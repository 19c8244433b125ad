//! How fast this machine's cores read memory: the yardstick of decode speed.

use std::hint::black_box;
use std::time::Instant;

/// Far beyond any last-level cache.
const BYTES: usize = 512 << 20;
const ROUNDS: usize = 5;

/// Gigabytes a second that `threads` threads read together, plain loads of memory in order; the best of a few rounds.
pub(crate) fn read_gb_per_s(threads: usize) -> f64 {
    let words = vec![1u64; BYTES / 8];
    let part = words.len().div_ceil(threads.max(1));
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(part) {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        best = best.min(begun.elapsed().as_secs_f64());
    }
    BYTES as f64 / best / 1e9
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
