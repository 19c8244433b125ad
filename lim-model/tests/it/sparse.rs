//! What the policies do to a whole model, and what the counters say about it.

use std::sync::atomic::AtomicBool;

use lim_kernels::PageExtras;
use lim_model::{Request, ScoreOptions};
use lim_select::Policy;

use crate::tiny::{alone, attention, engine, greedy, options, prompt, random, run};

#[test]
fn within_the_budget_every_policy_is_full_bit_for_bit() {
    // 30 + 34 tokens, of which the last is never cached.
    let request = Request { samples: 2, ..random(30, 3, 34) };
    let full = alone(attention(Policy::Full, 0), request.clone());
    for policy in Policy::ALL {
        let mut engine = engine(attention(policy, 63), options());
        let ids = engine.add(request.clone()).unwrap();
        assert_eq!(run(&mut engine, &ids).0, full, "{policy}");
        let sparsity = engine.usage().unwrap().sparsity();
        assert_eq!(sparsity.selections, 0);
        assert_eq!(sparsity.mean_attended_tokens, sparsity.mean_context_tokens);
        assert_eq!(sparsity.kv_bytes_read, sparsity.kv_bytes_dense);
    }
}

#[test]
fn beyond_the_budget_sparse_policies_differ_from_full() {
    let logprobs = |policy| alone(attention(policy, 24), greedy(80, 3, 20)).remove(0).logprobs;
    for policy in Policy::ALL.into_iter().filter(|&policy| policy != Policy::Full) {
        assert_ne!(logprobs(policy), logprobs(Policy::Full), "{policy}");
    }
}

#[test]
fn a_sequence_within_the_budget_is_dense_beside_a_longer_one() {
    let long = greedy(100, 1, 40);
    let short = greedy(10, 2, 14);
    for policy in Policy::ALL {
        let mut engine = engine(attention(policy, 24), options());
        let ids: Vec<_> =
            [long.clone(), short.clone()].into_iter().flat_map(|r| engine.add(r).unwrap()).collect();
        let (outcomes, _) = run(&mut engine, &ids);
        assert_eq!(outcomes[1], alone(attention(Policy::Full, 0), short.clone())[0], "{policy}");
    }
}

#[test]
fn the_counters_count_lessismore() {
    // Layer 0 dense, 1 selects and attends densely, 2 reuses, 3 selects and attends sparsely, 4 reuses.
    let (budget, prompt_len, steps) = (24, 60, 10);
    let mut engine = engine(attention(Policy::Lim, budget), options());
    let ids = engine.add(greedy(prompt_len, 1, steps + 1)).unwrap();
    run(&mut engine, &ids);
    let usage = engine.usage().unwrap();
    let context: u64 = (1..=steps).map(|step| (prompt_len + step) as u64).sum();
    let sparse = (steps * budget) as u64;
    let attended: Vec<u64> = usage.layers.iter().map(|layer| layer.attended).collect();
    assert_eq!(attended, [context, context, sparse, sparse, sparse]);
    let selections: Vec<u64> = usage.layers.iter().map(|layer| layer.selections).collect();
    assert_eq!(selections, [0, steps as u64, 0, steps as u64, 0]);
    assert!(usage.layers.iter().all(|layer| layer.context == context));

    let sparsity = usage.sparsity();
    assert_eq!(sparsity.mean_context_tokens, context as f64 / steps as f64);
    assert_eq!(sparsity.mean_attended_tokens, (2 * context + 3 * sparse) as f64 / (5 * steps) as f64);
    assert_eq!(sparsity.selections, 2 * steps as u64);
    assert_eq!(sparsity.kv_bytes_dense, 5 * context * usage.token_bytes);
    assert!(sparsity.kv_bytes_read < sparsity.kv_bytes_dense);
}

/// Layers after the first selection read no more than the budget, and less than everything.
#[test]
fn every_policy_reads_its_budget() {
    let (budget, prompt_len, steps) = (24, 60, 10);
    for policy in Policy::ALL.into_iter().filter(|&policy| policy != Policy::Full) {
        let mut engine = engine(attention(policy, budget), options());
        let ids = engine.add(greedy(prompt_len, 1, steps + 1)).unwrap();
        run(&mut engine, &ids);
        let usage = engine.usage().unwrap();
        let last = usage.layers[4];
        assert_eq!(last.context, (1..=steps).map(|step| (prompt_len + step) as u64).sum::<u64>());
        let most = (steps * budget) as u64;
        match policy {
            // Pages may be partly filled, and shares may take fewer tokens.
            Policy::Quest | Policy::Seer | Policy::Delta => {
                assert!(last.attended <= most && last.attended > most / 2, "{policy}")
            }
            Policy::TopP => assert!((steps as u64..=most).contains(&last.attended), "{policy}"),
            _ => assert_eq!(last.attended, most, "{policy}"),
        }
        assert!(usage.sparsity().selections >= steps as u64, "{policy}");
    }
}

#[test]
fn a_policy_can_be_changed_between_runs() {
    let mut options = options();
    options.extras = PageExtras { bounds: true, gates: true };
    let mut engine = engine(attention(Policy::Lim, 24), options);
    for policy in Policy::ALL {
        engine.set_attention(attention(policy, 24)).unwrap();
        let ids = engine.add(greedy(70, 4, 12)).unwrap();
        assert_eq!(run(&mut engine, &ids).0, alone(attention(policy, 24), greedy(70, 4, 12)), "{policy}");
    }
}

#[test]
fn what_a_policy_needs_beside_the_pages_must_be_there() {
    let mut engine = engine(attention(Policy::Lim, 24), options());
    for (policy, what) in [(Policy::Quest, "page bounds"), (Policy::Seer, "page gates")] {
        let error = engine.set_attention(attention(policy, 24)).unwrap_err().to_string();
        assert_eq!(error, format!("attention `{policy}` needs {what}, the engine has none"));
    }
}

#[test]
fn a_random_prefix_stands_in_for_a_prefill() {
    let request = Request { random_prefix: 100, ..greedy(103, 1, 10) };
    let mut engine = engine(attention(Policy::Lim, 24), options());
    let ids = engine.add(request.clone()).unwrap();
    let (first, _) = run(&mut engine, &ids);
    let totals = engine.usage().unwrap().totals;
    assert_eq!((totals.prefill_tokens, totals.decode_tokens, totals.decode_steps), (3, 9, 9));
    assert_eq!(first, alone(attention(Policy::Lim, 24), request));
    assert_ne!(first, alone(attention(Policy::Lim, 24), greedy(103, 1, 10)));
}

#[test]
fn scoring_counts_as_decoding() {
    let mut engine = engine(attention(Policy::Lim, 24), options());
    let ids = prompt(60, 1);
    let options = ScoreOptions { ids: &ids, prefill: 40 };
    engine.score(options, &AtomicBool::new(false), |_| ()).unwrap();
    // 19 tokens are fed one by one; the last is only scored.
    assert_eq!(engine.usage().unwrap().sparsity().selections, 2 * 19);
    assert_eq!(engine.usage().unwrap().totals.decode_tokens, 19);
}
