//! Philox4x32-10 (Salmon et al. 2011, Random123): a random value from its place in a stream, no state.

/// The four words of `counter` under `key`.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// The random value of a sequence at its `index`-th generated token: uniform on the multiples of 2^-24 in `[0, 1)`.
///
/// Key: the seed, low word first. Counter: the index, low word first, then two zeros. The value is the result's first
/// word without its low eight bits.
pub(super) fn uniform(seed: u64, index: u64) -> f32 {
    let [word, ..] = philox([index as u32, (index >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    (word >> 8) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let out = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox(pi, [0xa409_3822, 0x299f_31d0]), out);
    }

    #[test]
    fn uniform_is_in_range_and_spread() {
        let mean = (0..4096).map(|i| f64::from(uniform(7, i))).sum::<f64>() / 4096.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        assert!((0..4096).all(|i| (0.0..1.0).contains(&uniform(7, i))));
        assert_ne!(uniform(7, 1), uniform(8, 1));
    }
}
