//! Order of scores: the highest first, the lower position first on ties, -0 as +0, NaN as -inf.

/// The first pass counts keys by their high bits, those above this one.
const CUT: u32 = 21;
const BINS: usize = 1 << (32 - CUT);

/// A score and its position as one integer: the greater comes first.
pub(super) fn key(score: f32, position: u32) -> u64 {
    u64::from(order(score)) << 32 | u64::from(!position)
}

/// Position of a [`key`].
pub(super) fn position(key: u64) -> u32 {
    !(key as u32)
}

/// Integers in the order of the scores.
#[inline(always)]
fn order(score: f32) -> u32 {
    let score = if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 };
    let bits = score.to_bits();
    // Negative numbers: all bits flipped, so that greater magnitude is less; others: above them.
    bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000)
}

/// The keys of the `want` first of `scores`, in any order; `scores[i]` stands at position `first + i`.
///
/// A histogram of the keys' high bits finds where the cut lies; only what may lie above it is partitioned, in `room`.
pub(super) fn best(scores: &[f32], first: usize, want: usize, room: &mut Vec<u64>, out: &mut Vec<u64>) {
    room.clear();
    out.clear();
    let want = want.min(scores.len());
    if want == 0 {
        return;
    }
    let mut bins = [0u32; BINS];
    for &score in scores {
        bins[(order(score) >> CUT) as usize] += 1;
    }
    let (mut above, mut cut) = (0, BINS);
    while above < want {
        cut -= 1;
        above += bins[cut] as usize;
    }
    let least = (cut << CUT) as u32;
    for (i, &score) in scores.iter().enumerate() {
        if order(score) >= least {
            room.push(key(score, (first + i) as u32));
        }
    }
    if want < room.len() {
        room.select_nth_unstable_by(want - 1, |a, b| b.cmp(a));
    }
    out.extend_from_slice(&room[..want]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_order_scores_then_positions() {
        let falling =
            [f32::INFINITY, 3.0, 1.5, f32::MIN_POSITIVE, 0.0, -1e-40, -1.0, f32::MIN, f32::NEG_INFINITY];
        for pair in falling.windows(2) {
            assert!(key(pair[0], 9) > key(pair[1], 0), "{pair:?}");
        }
        for (a, b) in [(0.0, -0.0), (f32::NAN, f32::NEG_INFINITY), (-f32::NAN, f32::NEG_INFINITY), (2.0, 2.0)]
        {
            assert!(key(a, 3) > key(b, 4) && key(b, 3) > key(a, 4), "{a} {b}");
        }
        assert_eq!(position(key(1.0, 77)), 77);
    }

    fn score() -> impl Strategy<Value = f32> {
        prop_oneof![any::<f32>(), -2.0f32..2.0, (-3i8..3).prop_map(f32::from), Just(f32::NAN), Just(-0.0)]
    }

    proptest! {
        #[test]
        fn best_is_the_head_of_a_sort(
            scores in prop::collection::vec(score(), 0..300),
            first in 0usize..5,
            want in 0usize..310,
        ) {
            let mut all: Vec<u64> = scores.iter().enumerate().map(|(i, &s)| key(s, (first + i) as u32)).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.truncate(want);
            let (mut room, mut got) = (Vec::new(), Vec::new());
            best(&scores, first, want, &mut room, &mut got);
            got.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(got, all);
        }
    }
}
