//! The rate that every byte limit is stated against.

use super::Cuda;
use crate::{Error, Result};

/// Bytes of the random block that the copied memory repeats.
const BLOCK: usize = 16 << 20;

impl Cuda {
    /// Bytes per second, read plus written, of a device-to-device copy of `bytes` bytes by the driver; the median of
    /// 9. Takes twice that memory while it runs. The bytes are random: a GPU moves zeros faster.
    ///
    /// # Errors
    /// When `bytes` is below 16 MiB (a copy that small says nothing), or memory cannot be had.
    pub fn copy_bandwidth(&mut self, bytes: usize) -> Result<f64> {
        if bytes < BLOCK {
            let must = format!("at least {BLOCK}");
            return Err(Error::Range { op: "copy bandwidth", what: "bytes", got: bytes as u64, must });
        }
        let blocks = bytes / BLOCK;
        let block = self.upload_slice(&random_words(BLOCK / 8), "a random block")?;
        let mut from = self.zeros::<u64>(blocks * BLOCK / 8, "memory to copy")?;
        let mut to = self.zeros::<u64>(blocks * BLOCK / 8, "memory to copy to")?;
        for index in 0..blocks {
            self.copy_over(&block, &mut from, index * BLOCK / 8)?;
        }
        let mut seconds = Vec::with_capacity(9);
        for _ in 0..9 {
            seconds.push(self.elapsed(|cuda| cuda.copy_over(&from, &mut to, 0))?.as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok((2 * blocks * BLOCK) as f64 / seconds[4])
    }
}

/// xorshift64.
fn random_words(count: usize) -> Vec<u64> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count).map(|_| next()).collect()
}
