//! Sequences that share an engine behave as if they were alone.

use lim_kernels::{DType, PageSize, SampleParams};
use lim_model::{Event, FinishReason, Request, sample_seed};
use lim_select::Policy;

use crate::tiny::{self, alone, attention, engine, greedy, options, random, run};

const BUDGET: usize = 24;

#[test]
fn a_batch_equals_its_sequences_alone() {
    for policy in Policy::ALL {
        let requests =
            [greedy(3, 1, 60), random(40, 2, 20), greedy(17, 3, 33), random(1, 4, 50), greedy(90, 5, 9)];
        let mut engine = engine(attention(policy, BUDGET), options());
        let mut ids = Vec::new();
        for request in &requests[..3] {
            ids.extend(engine.add(request.clone()).unwrap());
        }
        let mut outcomes = vec![tiny::Outcome::default(); requests.len()];
        for _ in 0..12 {
            take(&mut outcomes, engine.step().unwrap(), &ids);
        }
        for request in &requests[3..] {
            ids.extend(engine.add(request.clone()).unwrap());
        }
        while !engine.is_idle() {
            take(&mut outcomes, engine.step().unwrap(), &ids);
        }
        for (outcome, request) in outcomes.iter().zip(requests) {
            assert_eq!(*outcome, alone(attention(policy, BUDGET), request)[0], "{policy}");
        }
        assert_eq!(engine.cache().used_pages(), 0);
    }
}

fn take(outcomes: &mut [tiny::Outcome], events: &[Event], ids: &[lim_model::SeqId]) {
    for event in events {
        let number = |id| ids.iter().position(|&other| other == id).unwrap();
        match *event {
            Event::Token { id, sampled } => outcomes[number(id)].push(sampled),
            Event::Finished { id, reason } => outcomes[number(id)].reason = Some(reason),
            Event::Prefill { .. } => {}
            Event::Preempted { .. } => panic!("there are pages for all"),
        }
    }
}

#[test]
fn the_size_of_a_batch_does_not_matter() {
    for dtype in [DType::F32, DType::BF16] {
        let mut wide = options();
        wide.capacity.seqs = 33;
        wide.capacity.rows = 33;
        wide.pages = 33 * 16;
        let requests: Vec<Request> = (0..33).map(|i| greedy(1 + i % 7, i as u32, 40)).collect();
        let mut engine = tiny::engine_of(dtype, attention(Policy::Lim, BUDGET), wide);
        let ids: Vec<_> = requests.iter().flat_map(|r| engine.add(r.clone()).unwrap()).collect();
        let (outcomes, _) = run(&mut engine, &ids);
        for (outcome, request) in outcomes.iter().zip(requests) {
            let mut engine = tiny::engine_of(dtype, attention(Policy::Lim, BUDGET), wide);
            let ids = engine.add(request).unwrap();
            assert_eq!(*outcome, run(&mut engine, &ids).0[0], "{dtype}");
        }
    }
}

#[test]
fn samples_equal_separate_runs() {
    for policy in Policy::ALL {
        // 37 tokens end inside a page, which the samples share until they write to it.
        let request = random(37, 9, 30);
        let samples = alone(attention(policy, BUDGET), Request { samples: 4, ..request.clone() });
        for (i, sample) in samples.iter().enumerate() {
            let params = SampleParams { seed: sample_seed(request.params.seed, i), ..request.params };
            let separate = alone(attention(policy, BUDGET), Request { params, ..request.clone() });
            assert_eq!(*sample, separate[0], "{policy}, sample {i}");
        }
        assert_ne!(samples[0], samples[1]);
    }
}

#[test]
fn samples_share_the_prompt_pages() {
    let mut engine = engine(attention(Policy::Full, BUDGET), options());
    let ids = engine.add(Request { samples: 4, ..random(40, 1, 8) }).unwrap();
    let mut most = 0;
    while !engine.is_idle() {
        engine.step().unwrap();
        most = most.max(engine.cache().used_pages());
    }
    // 10 full pages of prompt, and 2 pages of each sample's own.
    assert_eq!((ids.len(), most), (4, 10 + 4 * 2));
}

#[test]
fn a_preempted_sequence_goes_on_as_if_nothing_had_happened() {
    for policy in Policy::ALL {
        let requests = [random(30, 1, 40), random(21, 2, 50), greedy(10, 3, 60)];
        let mut small = options();
        small.pages = 30; // 120 tokens; the sequences end at 70, 71 and 70
        let mut engine = engine(attention(policy, BUDGET), small);
        let ids: Vec<_> = requests.iter().flat_map(|r| engine.add(r.clone()).unwrap()).collect();
        let (outcomes, preempted) = run(&mut engine, &ids);
        assert!(preempted > 0);
        for (outcome, request) in outcomes.iter().zip(requests) {
            assert_eq!(*outcome, alone(attention(policy, BUDGET), request)[0], "{policy}");
        }
    }
}

#[test]
fn samples_that_outgrow_the_pages_still_finish() {
    let request = Request { samples: 4, ..random(30, 1, 60) };
    let mut small = options();
    small.pages = 24;
    let mut engine = engine(attention(Policy::Lim, BUDGET), small);
    let ids = engine.add(request.clone()).unwrap();
    let (outcomes, preempted) = run(&mut engine, &ids);
    assert!(preempted > 0);
    assert_eq!(outcomes, alone(attention(Policy::Lim, BUDGET), request));
}

#[test]
fn the_context_ends_a_sequence() {
    let mut small = options();
    small.pages = 5;
    small.page_size = PageSize::new(4).unwrap();
    let mut engine = engine(attention(Policy::Full, BUDGET), small);
    let ids = engine.add(greedy(15, 1, 100)).unwrap();
    let (outcomes, _) = run(&mut engine, &ids);
    // 20 cached tokens, and one that needs no place.
    assert_eq!(outcomes[0].tokens.len(), 20 - 15 + 1);
    assert_eq!(outcomes[0].reason, Some(FinishReason::Context));
}

#[test]
fn stop_tokens_and_limits_end_a_sequence() {
    let free = alone(attention(Policy::Full, BUDGET), greedy(8, 6, 40)).remove(0);
    assert_eq!((free.tokens.len(), free.reason), (40, Some(FinishReason::Length)));
    let stop = free.tokens[11];
    let first = free.tokens.iter().position(|&t| t == stop).unwrap();
    let request = Request { stop_ids: vec![stop], ..greedy(8, 6, 40) };
    let stopped = alone(attention(Policy::Full, BUDGET), request).remove(0);
    assert_eq!(stopped.tokens, free.tokens[..=first]);
    assert_eq!(stopped.reason, Some(FinishReason::Stop));
}

#[test]
fn finishing_early_frees_the_pages() {
    let mut engine = engine(attention(Policy::Lim, BUDGET), options());
    let running = engine.add(Request { samples: 2, ..random(20, 1, 100) }).unwrap();
    let prefilling = engine.add(greedy(60, 2, 10)).unwrap();
    let waiting = engine.add(greedy(60, 3, 10)).unwrap();
    for _ in 0..4 {
        engine.step().unwrap();
    }
    assert!(engine.cache().used_pages() > 0);
    for id in [running, prefilling, waiting].concat() {
        assert!(engine.finish(id).unwrap());
        assert!(!engine.finish(id).unwrap());
    }
    assert!(engine.is_idle());
    assert_eq!((engine.cache().used_pages(), engine.cache().live_tables()), (0, 0));
    let ids = engine.add(greedy(60, 3, 10)).unwrap();
    assert_eq!(run(&mut engine, &ids).0, alone(attention(Policy::Lim, BUDGET), greedy(60, 3, 10)));
}

#[test]
fn what_cannot_be_met_is_refused() {
    let mut engine = engine(attention(Policy::Lim, BUDGET), options());
    let ok = greedy(8, 1, 4);
    let too_hot = SampleParams { temperature: f32::INFINITY, ..SampleParams::default() };
    for (request, message) in [
        (greedy(0, 1, 4), "prompt has no tokens"),
        (greedy(257, 1, 4), "prompt has 257 tokens, the engine takes 256"),
        (Request { prompt: vec![1, 128], ..ok.clone() }, "prompt token 1 is 128, the vocabulary has 128"),
        (Request { samples: 0, ..ok.clone() }, "samples are 0, from 1 to the engine's 4"),
        (Request { samples: 5, ..ok.clone() }, "samples are 5, from 1 to the engine's 4"),
        (Request { max_new_tokens: 0, ..ok.clone() }, "max new tokens is 0, at least 1"),
        (Request { random_prefix: 8, ..ok.clone() }, "random prefix is 8 of a prompt of 8"),
        (Request { params: too_hot, ..ok.clone() }, "temperature is inf, must be 0 or more"),
    ] {
        assert_eq!(engine.add(request).unwrap_err().to_string(), message);
    }
    assert!(engine.is_idle());
}
