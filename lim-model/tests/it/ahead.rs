//! An engine that issues a step before it has read the tokens of the one before, on a CPU that asks for it and fills up
//! its steps: all comes out as where each step is waited for.

use std::sync::atomic::AtomicBool;

use lim_kernels::cpu::Cpu;
use lim_kernels::{DType, SampleParams};
use lim_model::{Engine, EngineOptions, Event, FinishReason, Request, ScoreOptions, ThinkingBudget, Usage};
use lim_select::Policy;

use crate::tiny::{self, Outcome, attention, engine_on, greedy, random, run};

const BUDGET: usize = 24;

fn ahead(policy: Policy, options: EngineOptions) -> Engine<Cpu> {
    let cpu = Cpu::new(Some(2)).unwrap().like_a_device();
    engine_on(cpu, DType::F32, attention(policy, BUDGET), options)
}

fn waiting(policy: Policy, options: EngineOptions) -> Engine<Cpu> {
    tiny::engine(attention(policy, BUDGET), options)
}

/// Outcomes, preemptions and counts of all requests together.
fn all(mut engine: Engine<Cpu>, requests: &[Request]) -> (Vec<Outcome>, usize, Usage) {
    let ids: Vec<_> = requests.iter().flat_map(|r| engine.add(r.clone()).unwrap()).collect();
    let (outcomes, preempted) = run(&mut engine, &ids);
    (outcomes, preempted, engine.usage().unwrap())
}

/// Requests that end in every way, with settings that depend on what was drawn before.
pub(crate) fn requests() -> Vec<Request> {
    let penalised = SampleParams {
        temperature: 0.9,
        repetition_penalty: 1.3,
        presence_penalty: 0.2,
        frequency_penalty: 0.1,
        seed: 4,
        ..SampleParams::default()
    };
    let thinking = |tokens| Some(ThinkingBudget { tokens, end: 5, closing: vec![9, 5, 11] });
    vec![
        Request { params: penalised, ..greedy(20, 1, 50) },
        // Some of these are drawn soon.
        Request { stop_ids: (0..16).collect(), ..random(40, 2, 60) },
        Request { stop_ids: (16..24).collect(), samples: 2, ..random(5, 3, 60) },
        Request { thinking: thinking(17), ..random(11, 4, 40) },
        Request { thinking: thinking(1), stop_ids: vec![11], ..greedy(9, 5, 40) },
        Request { thinking: thinking(0), ..greedy(30, 6, 12) },
        greedy(7, 7, 1),
        random(60, 8, 33),
    ]
}

#[test]
fn outcomes_and_counts_are_the_same() {
    for policy in Policy::ALL {
        let (outcomes, _, usage) = all(ahead(policy, tiny::options()), &requests());
        let (expected, _, counts) = all(waiting(policy, tiny::options()), &requests());
        assert_eq!(outcomes, expected, "{policy}");
        assert!(expected.iter().any(|o| o.reason == Some(FinishReason::Stop)), "no stop token was drawn");
        assert_eq!(usage.layers, counts.layers, "{policy}");
        assert_eq!(usage.totals.decode_tokens, counts.totals.decode_tokens, "{policy}");
        assert_eq!(usage.sparsity(), counts.sparsity(), "{policy}");
    }
}

#[test]
fn a_full_cache_is_handled_alike() {
    for policy in [Policy::Full, Policy::Lim, Policy::Quest] {
        // 120 tokens; some of the sequences end at 70.
        let small = EngineOptions { pages: 30, ..tiny::options() };
        let requests = [requests(), vec![random(30, 1, 40), random(21, 2, 50), greedy(10, 3, 60)]].concat();
        let (outcomes, preempted, _) = all(ahead(policy, small), &requests);
        let (expected, as_often, _) = all(waiting(policy, small), &requests);
        assert_eq!(outcomes, expected, "{policy}");
        assert!(preempted > 0 && as_often > 0);
    }
}

/// Sequences that the caller ends leave a step under way behind them, which nobody hears of.
#[test]
fn a_caller_may_end_what_is_under_way() {
    let mut engine = ahead(Policy::Lim, tiny::options());
    let ids = engine.add(Request { samples: 2, ..random(20, 1, 100) }).unwrap();
    let third = engine.add(greedy(30, 2, 40)).unwrap()[0];
    let (mut tokens, mut outcome) = (0, Outcome::default());
    while !engine.is_idle() {
        for event in engine.step().unwrap().to_vec() {
            match event {
                Event::Token { id, sampled } if id == third => outcome.push(sampled),
                Event::Token { id, .. } => {
                    assert!(tokens < 12 || id != ids[0], "a token after the end");
                    tokens += usize::from(id == ids[0]);
                    if tokens == 12 && id == ids[0] {
                        assert!(engine.finish(id).unwrap());
                    }
                }
                Event::Finished { id, reason } if id == third => outcome.reason = Some(reason),
                _ => {}
            }
        }
    }
    assert_eq!(outcome, tiny::alone(attention(Policy::Lim, BUDGET), greedy(30, 2, 40))[0]);
    let id = engine.add(greedy(30, 2, 40)).unwrap()[0];
    for _ in 0..6 {
        engine.step().unwrap();
    }
    assert!(engine.finish(id).unwrap() && engine.is_idle());
    engine.forget_prompts().unwrap();
    assert_eq!((engine.cache().used_pages(), engine.cache().live_tables()), (0, 0));
    let ids = engine.add(greedy(30, 2, 40)).unwrap();
    assert_eq!(run(&mut engine, &ids).0[0], outcome);
}

/// The step that ends a prompt does not wait for its first token, which comes with the next; until then the sequence may be
/// ended, and others may start or decode.
#[test]
fn a_first_token_is_not_waited_for() {
    for end_it in [false, true] {
        let mut engine = ahead(Policy::Lim, tiny::options());
        let requests = [greedy(30, 2, 40), Request { samples: 2, ..random(20, 1, 30) }, random(45, 3, 1)];
        let ids: Vec<_> = requests.iter().flat_map(|r| engine.add(r.clone()).unwrap()).collect();
        let mut outcomes = vec![Outcome::default(); ids.len()];
        let mut cached = Vec::new();
        while !engine.is_idle() {
            let begun = cached.len();
            for event in engine.step().unwrap().to_vec() {
                match event {
                    Event::Prefill { id, done, total } if done == total => cached.push(id),
                    Event::Token { id, sampled } => {
                        assert!(
                            !cached[begun..].contains(&id),
                            "the prompt's own step tells its first token"
                        );
                        outcomes[ids.iter().position(|&other| other == id).unwrap()].push(sampled);
                    }
                    Event::Finished { id, reason } => {
                        outcomes[ids.iter().position(|&other| other == id).unwrap()].reason = Some(reason);
                    }
                    _ => {}
                }
            }
            if end_it && cached[begun..].contains(&ids[1]) {
                assert!(engine.finish(ids[1]).unwrap());
            }
        }
        let mut expected: Vec<_> =
            requests.iter().flat_map(|r| tiny::alone(attention(Policy::Lim, BUDGET), r.clone())).collect();
        if end_it {
            expected[1] = Outcome::default();
        }
        assert_eq!(outcomes, expected);
        engine.forget_prompts().unwrap();
        assert_eq!((engine.cache().used_pages(), engine.cache().live_tables()), (0, 0));
    }
}

#[test]
fn scores_are_the_same_beside_running_sequences() {
    for policy in [Policy::Full, Policy::Lim] {
        let text = tiny::prompt(90, 3);
        let options = ScoreOptions { ids: &text, prefill: 20 };
        let score = |engine: &mut Engine<Cpu>| {
            let nll = engine.score(options, &AtomicBool::new(false), |_| ()).unwrap();
            nll.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let expected = score(&mut waiting(policy, tiny::options()));
        let mut engine = ahead(policy, tiny::options());
        let ids = engine.add(random(20, 1, 30)).unwrap();
        let mut outcome = Outcome::default();
        let mut scored = false;
        while !engine.is_idle() {
            for event in engine.step().unwrap() {
                match *event {
                    Event::Token { sampled, .. } => outcome.push(sampled),
                    Event::Finished { reason, .. } => outcome.reason = Some(reason),
                    _ => {}
                }
            }
            if outcome.tokens.len() == 9 && !std::mem::replace(&mut scored, true) {
                assert_eq!(score(&mut engine), expected, "{policy}");
            }
        }
        assert!(scored && ids.len() == 1);
        assert_eq!(outcome, tiny::alone(attention(policy, BUDGET), random(20, 1, 30))[0], "{policy}");
    }
}

#[test]
fn too_many_stop_tokens_are_refused() {
    let mut engine = waiting(Policy::Full, tiny::options());
    let error = engine.add(Request { stop_ids: vec![1; 17], ..greedy(8, 1, 4) }).unwrap_err();
    assert_eq!(error.to_string(), "stop tokens are 17, at most 16");
}
