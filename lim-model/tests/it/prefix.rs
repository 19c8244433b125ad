//! Prompts that begin alike share pages, and nothing else changes.

use lim_kernels::DType;
use lim_model::{EngineOptions, Request, Totals};
use lim_select::Policy;
use proptest::prelude::*;

use crate::tiny::{self, Outcome, attention, engine, engine_of, prompt, random, run};

const BUDGET: usize = 24;

/// Chunks long enough for prompts to be kept.
fn options(prompts: usize) -> EngineOptions {
    let mut options = tiny::options();
    options.capacity.rows = 48;
    options.prompts = prompts;
    options
}

/// `len` tokens: the first `common` as in prompt 0, the others its own.
fn request(common: usize, len: usize, seed: u32) -> Request {
    let mut tokens = prompt(len.max(common), 0);
    tokens[common..].copy_from_slice(&prompt(len.max(common), seed)[common..]);
    Request { prompt: tokens, ..random(1, seed, 6) }
}

/// On an engine of its own that keeps nothing.
fn alone(dtype: DType, policy: Policy, request: Request) -> Outcome {
    let mut engine = engine_of(dtype, attention(policy, BUDGET), options(0));
    let ids = engine.add(request).unwrap();
    run(&mut engine, &ids).0.remove(0)
}

/// All requests on one engine.
fn together(
    dtype: DType,
    policy: Policy,
    options: EngineOptions,
    requests: &[Request],
) -> (Vec<Outcome>, Totals) {
    let mut engine = engine_of(dtype, attention(policy, BUDGET), options);
    let ids: Vec<_> = requests.iter().flat_map(|r| engine.add(r.clone()).unwrap()).collect();
    let (outcomes, _) = run(&mut engine, &ids);
    (outcomes, engine.usage().unwrap().totals)
}

#[test]
fn whole_pages_are_reused_and_the_end_is_computed() {
    // Pages of 4 tokens: 100 common tokens are 25 pages. Of the twin all but the last 17 tokens may be reused.
    let requests = [request(100, 130, 1), request(99, 140, 2), request(100, 130, 1), request(3, 90, 3)];
    let (_, totals) = together(DType::F32, Policy::Lim, options(8), &requests);
    assert_eq!(totals.reused_tokens, 96 + 112);
    assert_eq!(totals.prefill_tokens, 130 + (140 - 96) + (130 - 112) + 90);
    let (_, totals) = together(DType::F32, Policy::Lim, options(0), &requests);
    assert_eq!((totals.reused_tokens, totals.prefill_tokens), (0, 130 + 140 + 130 + 90));
}

#[test]
fn finished_prompts_are_kept_until_the_pages_are_needed() {
    let mut small = options(8);
    small.pages = 48; // 192 tokens
    let mut engine = engine(attention(Policy::Full, BUDGET), small);
    let mut pass = |request: Request| {
        engine.add(request).unwrap();
        while !engine.is_idle() {
            engine.step().unwrap();
        }
        (engine.usage().unwrap().totals.reused_tokens, engine.cache().used_pages())
    };
    assert_eq!(pass(request(80, 80, 1)), (0, 20));
    assert_eq!(pass(request(80, 100, 2)), (80, 25), "a longer prompt takes the place of its beginning");
    assert_eq!(pass(request(0, 60, 3)), (80, 25 + 15));
    assert_eq!(pass(request(0, 120, 4)), (80, 15 + 30), "the least recently used prompt goes first");
    assert_eq!(pass(request(80, 100, 2)), (80, 25), "there is room for nothing else");
    engine.forget_prompts().unwrap();
    assert_eq!((engine.cache().used_pages(), engine.cache().live_tables()), (0, 0));
}

#[test]
fn a_prompt_too_short_for_matrix_products_is_not_reused() {
    let requests = [request(16, 16, 1), request(16, 40, 2)];
    let (outcomes, totals) = together(DType::F32, Policy::Full, options(8), &requests);
    assert_eq!(totals.reused_tokens, 0);
    assert_eq!(outcomes[1], alone(DType::F32, Policy::Full, requests[1].clone()));
}

#[test]
fn measurements_at_a_depth_share_nothing() {
    let random = Request { random_prefix: 60, ..request(80, 80, 1) };
    let (_, totals) =
        together(DType::F32, Policy::Full, options(8), &[random.clone(), request(80, 80, 2), random]);
    assert_eq!((totals.reused_tokens, totals.prefill_tokens), (0, 20 + 80 + 20));
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let one = (prop_oneof![Just(0usize), 1..150usize], 1..60usize, 1..1000u32, 1..3usize);
    let one = one
        .prop_map(|(common, own, seed, samples)| Request { samples, ..request(common, common + own, seed) });
    prop::collection::vec(one, 1..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn results_equal_computing_alone(
        requests in requests(),
        policy in prop::sample::select(Policy::ALL.to_vec()),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16]),
        pages in 60..200usize,
        prompts in 1..6usize,
    ) {
        let (outcomes, _) = together(dtype, policy, EngineOptions { pages, ..options(prompts) }, &requests);
        let mut outcomes = outcomes.into_iter();
        for request in requests {
            let single = Request { samples: 1, ..request.clone() };
            prop_assert_eq!(outcomes.next().unwrap(), alone(dtype, policy, single));
            outcomes.by_ref().take(request.samples - 1).for_each(drop);
        }
    }
}
