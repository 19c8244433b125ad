//! The engine against plain calls of the model: every step run as it is and waited for, all tokens given. What the engine
//! records, replays, leaves on the device and reads late may change no bit.

use lim_kernels::cpu::Cpu;
use lim_kernels::{Backend, DType, Draw, KvLayout, Sampled, Step};
use lim_kvcache::{KvCache, PageTable};
use lim_model::{Pass, Phase, Request, Workspace};
use lim_select::{Attention, Buffers, Policy};

use crate::tiny::{self, Outcome, attention, config, engine_on, greedy, random, run};

/// What the sequences draw when they are prefilled one after the other and then decode together to the end: all generate as
/// many tokens.
fn plainly<B: Backend>(
    mut backend: B,
    dtype: DType,
    attention: &Attention,
    requests: &[Request],
) -> Vec<Outcome> {
    let options = tiny::options();
    let (capacity, page_size, config) = (options.capacity, options.page_size, config());
    let model = tiny::model(&mut backend, dtype);
    let layout = KvLayout { heads: config.heads, page_size, dtype };
    let extras = attention.policy().extras();
    let mut cache = KvCache::new(&mut backend, layout, config.layers, options.pages, extras).unwrap();
    let mut workspace = Workspace::new(&mut backend, &config, capacity, page_size).unwrap();
    let mut buffers = Buffers::new(&mut backend, attention, capacity, config.heads).unwrap();

    let mut tables: Vec<PageTable> = Vec::new();
    let mut outcomes = vec![Outcome::default(); requests.len()];
    let draw = |request: &Request, outcome: &Outcome, backend: &mut B, workspace: &mut Workspace<B>, row| {
        let params = request.params;
        let draws = [Draw { params, prompt: &request.prompt, generated: &outcome.tokens, ..Draw::default() }];
        let mut sampled = [Sampled { token: 0, logprob: 0.0 }];
        model.sample(backend, &[row], &draws, &mut sampled, workspace).unwrap();
        sampled[0]
    };
    let mut step = Step::default();
    for (request, outcome) in requests.iter().zip(&mut outcomes) {
        let (mut table, len) = (cache.table(), request.prompt.len());
        while table.len() < len {
            // As the engine cuts prompts: here, at its rows.
            let (done, end) = (table.len(), len.min(table.len() + capacity.rows));
            cache.reserve(&mut backend, &mut table, end).unwrap();
            step.clear();
            step.push(&request.prompt[done..end], end, table.pages()).unwrap();
            let (phase, step, cache, buffers) = (Phase::Prefill, &step, &mut cache, &mut buffers);
            let workspace = &mut workspace;
            let pass = Pass { phase, step, cache, attention, buffers, workspace, rope: None };
            model.forward(&mut backend, pass).unwrap();
        }
        outcome.push(draw(request, outcome, &mut backend, &mut workspace, step.rows() as u32 - 1));
        tables.push(table);
    }
    for _ in 1..requests[0].max_new_tokens {
        step.clear();
        for (table, outcome) in tables.iter_mut().zip(&outcomes) {
            let len = table.len() + 1;
            cache.reserve(&mut backend, table, len).unwrap();
            step.push(&outcome.tokens[outcome.tokens.len() - 1..], len, table.pages()).unwrap();
        }
        {
            let (phase, step, cache, buffers) = (Phase::Decode, &step, &mut cache, &mut buffers);
            let workspace = &mut workspace;
            let pass = Pass { phase, step, cache, attention, buffers, workspace, rope: None };
            model.forward(&mut backend, pass).unwrap();
        }
        let rows: Vec<u32> = (0..requests.len() as u32).collect();
        let draws: Vec<Draw<'_>> = requests
            .iter()
            .zip(&outcomes)
            .map(|(r, o)| Draw {
                params: r.params,
                prompt: &r.prompt,
                generated: &o.tokens,
                ..Draw::default()
            })
            .collect();
        let mut sampled = vec![Sampled { token: 0, logprob: 0.0 }; rows.len()];
        model.sample(&mut backend, &rows, &draws, &mut sampled, &mut workspace).unwrap();
        outcomes.iter_mut().zip(sampled).for_each(|(outcome, sampled)| outcome.push(sampled));
    }
    outcomes
}

/// Sequences that decode together from their first tokens to their last.
fn requests(most: usize) -> Vec<Request> {
    let penalised = |mut request: Request| {
        (request.params.repetition_penalty, request.params.frequency_penalty) = (1.2, 0.3);
        request
    };
    let all =
        [greedy(30, 1, 45), penalised(random(5, 2, 45)), random(64, 3, 45), penalised(greedy(17, 4, 45))];
    all.into_iter().take(most).collect()
}

/// For every policy, with one sequence and with four of other lengths.
pub(crate) fn engine_equals_plain_calls<B: Backend>(backend: impl Fn() -> B, dtype: DType) {
    for policy in Policy::ALL {
        for most in [1, 4] {
            let (attention, requests) = (attention(policy, 24), requests(most));
            let options = lim_model::EngineOptions { kv_dtype: dtype, ..tiny::options() };
            let mut engine = engine_on(backend(), dtype, attention.clone(), options);
            let ids: Vec<_> = requests.iter().flat_map(|r| engine.add(r.clone()).unwrap()).collect();
            let outcomes = run(&mut engine, &ids).0;
            let plain = plainly(backend(), dtype, &attention, &requests);
            for (i, (outcome, plain)) in outcomes.iter().zip(&plain).enumerate() {
                assert_eq!(outcome.tokens, plain.tokens, "{policy}, sequence {i} of {most}");
                assert_eq!(outcome.logprobs, plain.logprobs, "{policy}, sequence {i} of {most}");
            }
        }
    }
}

#[test]
fn the_engine_equals_plain_calls() {
    for dtype in [DType::F32, DType::BF16] {
        engine_equals_plain_calls(|| Cpu::new(Some(2)).unwrap(), dtype);
    }
}
