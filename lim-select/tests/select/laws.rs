//! Laws of the reference selection. The backends inherit them by being equal to it.

use lim_kernels::{PageSize, Quota};
use lim_select::{Choice, reference};
use proptest::prelude::*;

use crate::cases::{Case, case, draw, score};

const CHOICES: [Choice; 3] = [Choice::Union, Choice::PerQueryHead, Choice::Nothing];

fn sets(choice: Choice, case: &Case) -> Option<Vec<Vec<u32>>> {
    let Case { heads, tokens, scores, quota } = case;
    reference::select(choice, scores, *heads, *tokens, PageSize::default(), *quota)
}

fn ascending(set: &[u32]) -> bool {
    set.windows(2).all(|pair| pair[0] < pair[1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn sets_are_unique_ascending_in_range_and_exactly_k(case in case(120)) {
        let Case { heads, tokens, quota, .. } = case;
        for choice in CHOICES {
            // With nothing to rank, the budget is all sinks and window.
            let quota = match choice {
                Choice::Nothing => Quota { history: 0, window: quota.window + quota.history, ..quota },
                _ => quota,
            };
            let got = sets(choice, &Case { quota, ..case.clone() });
            prop_assert_eq!(got.is_none(), tokens <= quota.budget(), "dense exactly when n <= K");
            let Some(got) = got else { continue };
            prop_assert_eq!(got.len(), if choice == Choice::PerQueryHead { heads } else { 1 });
            for set in got {
                prop_assert_eq!(set.len(), quota.budget());
                prop_assert!(ascending(&set) && set[set.len() - 1] < tokens as u32);
                prop_assert!((0..quota.sinks as u32).all(|t| set.contains(&t)), "sinks");
                prop_assert!(((tokens - quota.window) as u32..tokens as u32).all(|t| set.contains(&t)), "recent");
            }
        }
    }

    #[test]
    fn quest_sets_are_whole_pages_with_the_last(
        case in case(150),
        page in prop::sample::select(vec![1usize, 4, 16]),
    ) {
        let Case { heads, tokens, quota, .. } = case;
        let page_size = PageSize::new(page).expect("valid");
        let pages = page_size.pages_for(tokens);
        let bounds = &case.scores[..heads * pages];
        let got = reference::quest(bounds, heads, tokens, page_size, quota);
        prop_assert_eq!(got.is_none(), tokens <= quota.budget());
        for set in got.into_iter().flatten() {
            let last = tokens - (pages - 1) * page;
            let kept = (quota.budget() / page).max(1);
            prop_assert_eq!(set.len(), (kept - 1) * page + last);
            prop_assert!(ascending(&set) && set[set.len() - 1] == tokens as u32 - 1);
            let whole = |run: &[u32]| {
                let start = run[0] as usize;
                start.is_multiple_of(page) && (run.len() == page || start == (pages - 1) * page)
            };
            let mut runs = set.chunk_by(|&a, &b| a as usize / page == b as usize / page);
            prop_assert!(runs.all(whole));
        }
    }

    /// Only the order of the scores within a head counts.
    #[test]
    fn increasing_transforms_of_a_head_change_nothing(case in case(80)) {
        let mut transformed = case.clone();
        for (h, of_head) in transformed.scores.chunks_mut(case.tokens).enumerate() {
            let mut levels: Vec<f32> = of_head.iter().map(|&s| reference::rank_value(s)).collect();
            levels.sort_by(f32::total_cmp);
            levels.dedup();
            for score in of_head {
                let level = levels.partition_point(|&l| l < reference::rank_value(*score));
                *score = (level as f32 - 20.0) * (h + 1) as f32;
            }
        }
        for choice in CHOICES {
            prop_assert_eq!(sets(choice, &transformed), sets(choice, &case));
        }
    }

    /// A head's place counts only inside the rank at which the budget runs out: tokens of better ranks are in and
    /// tokens of worse ranks are out, whatever the order of the heads.
    #[test]
    fn permuting_heads_moves_at_most_the_last_rank(case in case(80), seed in any::<u64>()) {
        let Case { heads, tokens, ref scores, quota } = case;
        prop_assume!(tokens > quota.budget() && quota.history > 0);
        let candidates = quota.sinks..tokens - quota.window;
        let mut best_rank = vec![usize::MAX; tokens];
        for of_head in scores.chunks(tokens) {
            for (rank, t) in reference::ranking(of_head, candidates.clone()).into_iter().enumerate() {
                best_rank[t as usize] = best_rank[t as usize].min(rank);
            }
        }
        let mut order: Vec<usize> = (0..heads).collect();
        let keys = draw(&score_pool(), heads, seed);
        order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
        let permuted: Vec<f32> = order.iter().flat_map(|&h| &scores[h * tokens..][..tokens]).copied().collect();
        let history = |scores: &[f32]| {
            let mut set = reference::union_history(scores, heads, candidates.clone(), quota.history);
            set.sort_unstable();
            set
        };
        let (one, other) = (history(scores), history(&permuted));
        let worst = one.iter().map(|&t| best_rank[t as usize]).max().expect("not empty");
        let certain = |set: &[u32]| -> Vec<u32> {
            set.iter().copied().filter(|&t| best_rank[t as usize] < worst).collect()
        };
        prop_assert_eq!(certain(&one), certain(&other));
        prop_assert!(other.iter().all(|&t| best_rank[t as usize] <= worst));
        if best_rank.iter().filter(|&&rank| rank <= worst).count() == quota.history {
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn permuting_heads_permutes_their_own_sets(case in case(80)) {
        let Case { tokens, ref scores, .. } = case;
        let reversed: Vec<f32> = scores.chunks(tokens).rev().flatten().copied().collect();
        let mut expected = sets(Choice::PerQueryHead, &case);
        if let Some(sets) = &mut expected {
            sets.reverse();
        }
        prop_assert_eq!(sets(Choice::PerQueryHead, &Case { scores: reversed, ..case }), expected);
    }

    /// Raising a score never costs its token the place.
    #[test]
    fn raising_a_selected_token_keeps_it(case in case(60), at in any::<prop::sample::Index>()) {
        let Some(before) = sets(Choice::Union, &case) else { return Ok(()) };
        let at = at.index(case.scores.len());
        let token = (at % case.tokens) as u32;
        prop_assume!(before[0].contains(&token));
        let mut raised = case;
        raised.scores[at] = f32::INFINITY;
        prop_assert!(sets(Choice::Union, &raised).expect("same n")[0].contains(&token));
    }

    #[test]
    fn equal_heads_act_as_one(case in case(80)) {
        let Case { heads, tokens, ref scores, quota } = case;
        let one = Case { heads: 1, tokens, scores: scores[..tokens].to_vec(), quota };
        let many = Case { scores: one.scores.repeat(heads), ..case };
        let expected = sets(Choice::Union, &one);
        prop_assert_eq!(sets(Choice::Union, &many), expected.clone());
        prop_assert_eq!(sets(Choice::PerQueryHead, &one), expected, "LessIsMore of one head is TidalDecode");
    }

    /// A larger budget of history adds tokens and drops none.
    #[test]
    fn histories_grow_by_appending(values in score(), heads in 1..6usize, n in 2..50usize, seed in any::<u64>()) {
        let scores = draw(&values, heads * n, seed);
        let all = reference::union_history(&scores, heads, 0..n, n);
        for count in 0..n {
            prop_assert_eq!(&reference::union_history(&scores, heads, 0..n, count), &all[..count]);
        }
    }
}

fn score_pool() -> Vec<f32> {
    (0..1000).map(|i| i as f32).collect()
}
