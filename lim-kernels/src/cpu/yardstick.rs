//! The yardstick of kernels that stream from memory: a plain read, as fast as the processor can.

use super::Cpu;
use super::simd::{Kernel, Simd};

/// Elements of one task: 4 MiB.
const TASK: usize = 1 << 20;
/// Streams of one thread.
const STREAMS: usize = 4;
/// Distance in bytes at which lines are fetched ahead.
const AHEAD: usize = 4096;

/// Sum of all elements, read in four streams with prefetch, as the linear layers of decode read weights.
struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let stream = self.0.len() / STREAMS / S::LANES * S::LANES;
        let mut sums = [s.splat(0.0); STREAMS];
        let mut i = 0;
        while i < stream {
            for (j, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `i + LANES <= stream`, and four streams lie inside the slice.
                let p = unsafe { self.0.as_ptr().add(j * stream + i) };
                s.prefetch(p.cast::<u8>().wrapping_add(AHEAD));
                // SAFETY: as above.
                *sum = s.add(*sum, unsafe { s.load(p) });
            }
            i += S::LANES;
        }
        let mut total = 0.0;
        for sum in sums {
            total += s.sum(sum);
        }
        for x in &self.0[STREAMS * stream..] {
            total += x;
        }
        total
    }
}

impl Cpu {
    /// Reads `data` once with all threads and returns the sum of its elements: bytes over time is the bandwidth that
    /// streaming kernels are measured against. Data should be ordinary numbers, far more than the caches hold.
    pub fn read(&mut self, data: &[f32]) -> f32 {
        let (isa, tasks) = (self.isa, data.len().div_ceil(TASK));
        let mut sums = vec![0.0; tasks];
        let parts = super::buffer::Parts::new(&mut sums);
        self.pool.run(tasks, |task, _| {
            let part = &data[task * TASK..((task + 1) * TASK).min(data.len())];
            // SAFETY: this task alone writes its sum.
            unsafe { parts.slice(task, 1)[0] = isa.run(Sum(part)) };
        });
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_element_once() {
        for n in [0, 1, 63, 1000, TASK + 17] {
            let data: Vec<f32> = (0..n).map(|i| (i % 4) as f32).collect();
            for mut cpu in Cpu::each_isa(Some(2)).unwrap() {
                assert_eq!(cpu.read(&data), data.iter().sum::<f32>(), "{n}");
            }
        }
    }
}
