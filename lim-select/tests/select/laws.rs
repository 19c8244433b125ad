//! Laws of the reference selection. The backends inherit them by being equal to it.

use lim_kernels::{Heads, PageSize, Pooling, Quota};
use lim_select::{Choice, Mass, reference};
use proptest::prelude::*;

use crate::cases::{Case, case, draw, score};

const CHOICES: [Choice; 3] = [Choice::Union, Choice::PerQueryHead, Choice::Nothing];
/// Those whose sets hold exactly K tokens.
const FULL_SIZE: [Choice; 5] =
    [Choice::Union, Choice::PerQueryHead, Choice::PerKvHead, Choice::Peak, Choice::Nothing];

fn sets(choice: Choice, case: &Case) -> Option<Vec<Vec<u32>>> {
    sets_of_mass(choice, case, 0.9)
}

fn sets_of_mass(choice: Choice, case: &Case, share: f64) -> Option<Vec<Vec<u32>>> {
    let Case { tokens, scores, quota, .. } = case;
    let mass = Mass { scale: 0.5, share };
    reference::select(choice, scores, heads(case), *tokens, PageSize::default(), *quota, mass)
}

/// The case's heads, in pairs where they are even.
fn heads(case: &Case) -> Heads {
    let kv = if case.heads.is_multiple_of(2) { case.heads / 2 } else { case.heads };
    Heads::new(case.heads, kv, 8).expect("valid")
}

fn ascending(set: &[u32]) -> bool {
    set.windows(2).all(|pair| pair[0] < pair[1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn sets_are_unique_ascending_in_range_and_exactly_k(case in case(120)) {
        let Case { tokens, quota, .. } = case;
        for choice in FULL_SIZE {
            // With nothing to rank, the budget is all sinks and window.
            let quota = match choice {
                Choice::Nothing => Quota { history: 0, window: quota.window + quota.history, ..quota },
                _ => quota,
            };
            let got = sets(choice, &Case { quota, ..case.clone() });
            prop_assert_eq!(got.is_none(), tokens <= quota.budget(), "dense exactly when n <= K");
            let Some(got) = got else { continue };
            prop_assert_eq!(got.len(), choice.sets().count(heads(&case)));
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

    #[test]
    fn pages_for_all_heads_are_whole_with_the_last_ones(case in case(150)) {
        let page = PageSize::new(4).expect("valid");
        let Case { tokens, ref scores, quota, .. } = case;
        let quota = Quota { sinks: 0, history: quota.history + quota.sinks, window: quota.window };
        let mass = Mass { scale: 0.5, share: 1.0 };
        let got = reference::select(Choice::PeakPages, scores, heads(&case), tokens, page, quota, mass);
        prop_assert_eq!(got.is_none(), tokens <= quota.budget());
        let Some(got) = got else { return Ok(()) };
        prop_assert!(got.len() == 1 && ascending(&got[0]));
        let pages: Vec<u32> = got[0].iter().map(|t| t / 4).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let all = page.pages_for(tokens) as u32;
        let wanted = (quota.budget() / 4).max(1);
        prop_assert_eq!(pages.len(), wanted);
        let whole: Vec<u32> = pages.iter().flat_map(|p| p * 4..(p * 4 + 4).min(tokens as u32)).collect();
        prop_assert_eq!(&got[0], &whole);
        let recent = (quota.window / 4).clamp(1, wanted) as u32;
        prop_assert!((all - recent..all).all(|p| pages.contains(&p)));
    }

    /// At most K tokens, sinks and window among them; every head's list holds the share, unless the budget cuts it.
    #[test]
    fn a_share_of_every_head_is_held_or_the_budget_is_full(case in case(80), share in 0.01..1.0f64) {
        let Case { tokens, ref scores, quota, .. } = case;
        prop_assume!(quota.window > 0);
        let got = sets_of_mass(Choice::Mass, &case, share);
        prop_assert_eq!(got.is_none(), tokens <= quota.budget());
        let Some(got) = got else { return Ok(()) };
        let set = &got[0];
        prop_assert!(ascending(set) && set.len() <= quota.budget());
        prop_assert!((0..quota.sinks as u32).chain((tokens - quota.window) as u32..tokens as u32).all(|t| set.contains(&t)));
        if set.len() < quota.budget() {
            let one = Heads::new(1, 1, 8).expect("valid");
            for of_head in scores.chunks(tokens) {
                let weights = reference::pooled(Pooling::Peak, of_head, one, PageSize::default(), 0.5);
                let held: f64 = set.iter().map(|&t| f64::from(weights[t as usize])).sum();
                let all: f64 = weights.iter().map(|&w| f64::from(w)).sum();
                prop_assert!(held >= (share - 1e-5) * all, "{held} of {all}, asked for {share}");
            }
        }
    }

    /// Asking for more never drops a token before the budget cuts; asking for everything takes what has weight.
    #[test]
    fn sets_grow_with_the_share(case in case(60), low in 0.01..1.0f64, high in 0.01..1.0f64) {
        prop_assume!(low <= high);
        let (Some(few), Some(many)) =
            (sets_of_mass(Choice::Mass, &case, low), sets_of_mass(Choice::Mass, &case, high))
        else {
            return Ok(());
        };
        prop_assert!(few[0].len() <= many[0].len());
        if many[0].len() < case.quota.budget() {
            prop_assert!(few[0].iter().all(|t| many[0].contains(t)));
        }
    }

    /// With a group of one query head, pooling keeps the order of scores that are well apart.
    #[test]
    fn pooling_of_one_head_ranks_as_its_scores(order in Just((0..40u32).collect::<Vec<_>>()).prop_shuffle()) {
        let scores: Vec<f32> = order.iter().map(|&x| x as f32 * 0.25 - 3.0).collect();
        let one = Heads::new(1, 1, 8).expect("valid");
        for by in [Pooling::Groups, Pooling::Peak] {
            let pooled = reference::pooled(by, &scores, one, PageSize::default(), 0.3);
            prop_assert_eq!(reference::ranking(&pooled, 0..40), reference::ranking(&scores, 0..40));
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
