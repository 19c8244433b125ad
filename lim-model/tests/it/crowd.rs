//! Far more sequences than the cache holds.

use lim_kernels::cpu::Cpu;
use lim_kernels::{Backend, DType};
use lim_model::{EngineOptions, Request};
use lim_select::{Attention, Policy};

use crate::tiny::{self, Outcome, attention, engine_on, greedy, prompt, random, run};

const SEQUENCES: u32 = 1000;

fn requests() -> Vec<Request> {
    let one = |i: u32| {
        let (len, new) = (1 + (i * 37 % 61) as usize, 1 + (i * 23 % 31) as usize);
        let mut request = if i.is_multiple_of(3) { greedy(len, i, new) } else { random(len, i, new) };
        if i.is_multiple_of(4) {
            // A beginning that many have.
            request.prompt.splice(..0, prompt(40, 7));
        }
        request
    };
    (0..SEQUENCES).map(one).collect()
}

fn options(seqs: usize, pages: usize, prompts: usize) -> EngineOptions {
    let mut options = EngineOptions { pages, prompts, ..tiny::options() };
    (options.capacity.seqs, options.capacity.rows) = (seqs, 48);
    options
}

/// All finish under a cache that holds some two sequences of the longest, no page leaks, and at least `equal` of them
/// are bit for bit what they are alone.
pub(crate) fn all_finish_as_if_alone<B: Backend>(
    backend: impl Fn() -> B,
    dtype: DType,
    attention: &Attention,
    equal: usize,
) {
    let requests = requests();
    let options = |seqs, pages, prompts| EngineOptions { kv_dtype: dtype, ..options(seqs, pages, prompts) };
    let mut engine = engine_on(backend(), dtype, attention.clone(), options(16, 70, 32));
    let ids: Vec<_> = requests.iter().flat_map(|r| engine.add(r.clone()).unwrap()).collect();
    let (outcomes, preempted) = run(&mut engine, &ids);
    assert!(preempted > 0, "the cache is large enough for all");
    assert!(engine.usage().unwrap().totals.reused_tokens > 0);
    let mut engine = engine_on(backend(), dtype, attention.clone(), options(1, 64, 0));
    let alone: Vec<Outcome> = requests
        .iter()
        .map(|request| {
            let ids = engine.add(request.clone()).unwrap();
            run(&mut engine, &ids).0.remove(0)
        })
        .collect();
    for (i, (outcome, request)) in outcomes.iter().zip(&requests).enumerate() {
        assert_eq!(outcome.tokens.len(), request.max_new_tokens, "sequence {i}");
        assert_eq!(outcome.reason, alone[i].reason, "sequence {i}");
    }
    let same = outcomes.iter().zip(&alone).filter(|(a, b)| a.tokens == b.tokens).count();
    let bits = outcomes.iter().zip(&alone).filter(|(a, b)| a == b).count();
    assert!(same >= equal, "{same} of {SEQUENCES} have the same tokens, {bits} the same bits");
    if equal == SEQUENCES as usize {
        assert_eq!(bits, equal);
    }
}

#[test]
fn a_thousand_sequences_finish_as_if_alone() {
    for policy in [Policy::Full, Policy::Lim] {
        let attention = attention(policy, 24);
        let all = SEQUENCES as usize;
        all_finish_as_if_alone(|| Cpu::new(Some(2)).unwrap(), DType::F32, &attention, all);
        all_finish_as_if_alone(|| Cpu::new(Some(2)).unwrap().like_a_device(), DType::F32, &attention, all);
    }
}
