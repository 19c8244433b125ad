//! Bytes and operations that an op cannot do without, and shares of what the machine can give.

use lim_kernels::cpu::Cpu;
use lim_kernels::{DType, KvLayout};

/// Far beyond any last-level cache: 256 MiB of float32.
const PLAIN_READ: usize = 64 << 20;

/// Weight bytes of `[out, in]`, read once whatever the number of rows.
pub fn gemv_bytes(dtype: DType, [outputs, inputs]: [usize; 2]) -> usize {
    outputs * inputs * dtype.bytes()
}

/// Multiplications and additions of `rows` rows through `[out, in]`.
pub fn gemm_flops(rows: usize, [outputs, inputs]: [usize; 2]) -> usize {
    2 * rows * outputs * inputs
}

/// KV bytes that attention over `tokens` tokens reads in one layer, one set for all heads.
pub fn attention_bytes(layout: KvLayout, tokens: usize) -> usize {
    tokens * layout.token_bytes()
}

/// Multiplications and additions of causal attention: `rows` rows that end at position `len - 1`.
pub fn causal_flops(layout: KvLayout, rows: usize, len: usize) -> usize {
    let seen: usize = (len - rows + 1..=len).sum();
    4 * seen * layout.heads.query() * layout.heads.dim()
}

/// A timing against a ceiling.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Bytes that had to be read.
    pub bytes: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// Bytes a second of a plain read in the same run.
    pub ceiling: f64,
}

impl Share {
    /// Gigabytes a second.
    pub fn gb_per_s(self) -> f64 {
        self.bytes as f64 / self.seconds / 1e9
    }

    /// The share of the ceiling, 1 being all of it.
    pub fn of_ceiling(self) -> f64 {
        self.bytes as f64 / self.seconds / self.ceiling
    }
}

/// Memory to read plainly. Other work on a machine makes a reading slower, never faster, so the best of readings taken
/// between the timings of a run is what the run could have had.
pub struct Ceiling {
    data: Vec<f32>,
    best: f64,
}

impl Default for Ceiling {
    fn default() -> Self {
        Ceiling { data: vec![1.0; PLAIN_READ], best: 0.0 }
    }
}

impl Ceiling {
    /// Reads once more.
    pub fn read(&mut self, cpu: &mut Cpu) {
        let begun = std::time::Instant::now();
        let sum = std::hint::black_box(cpu.read(&self.data));
        assert!(sum == PLAIN_READ as f32, "the yardstick read {sum}");
        self.best = self.best.max((PLAIN_READ * 4) as f64 / begun.elapsed().as_secs_f64());
    }

    /// Bytes a second of the best reading.
    pub fn bytes_per_s(&self) -> f64 {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lim_kernels::{Heads, PageSize};

    #[test]
    fn bytes_and_flops_of_known_shapes() {
        let layout = KvLayout {
            heads: Heads::new(32, 8, 128).unwrap(),
            page_size: PageSize::default(),
            dtype: DType::BF16,
        };
        assert_eq!(attention_bytes(layout, 32768), 128 << 20);
        assert_eq!(gemm_flops(512, [6144, 1024]), 6_442_450_944);
        assert_eq!(causal_flops(layout, 2, 3), 4 * 5 * 32 * 128);
    }

    #[test]
    fn ceiling_is_a_speed() {
        let (mut cpu, mut ceiling) = (Cpu::new(Some(1)).unwrap(), Ceiling::default());
        ceiling.read(&mut cpu);
        assert!(ceiling.bytes_per_s() > 1e8);
    }
}
