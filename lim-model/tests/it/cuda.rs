//! The golden models on a GPU. Without one these tests fail: feature `cuda` asks for it.

use lim_kernels::cuda::Cuda;
use lim_kernels::{DType, PageExtras};
use lim_select::Policy;

use crate::crowd::all_finish_as_if_alone;
use crate::hf::{NEW, decode_distance, engine_answers_like_hf, prefill_distance};
use crate::tiny::{self, engine_on, greedy, options, run};

/// The golden models with head sizes that the kernels know.
const MODELS: [&str; 2] = ["llama-head-32", "qwen3-head-64"];

fn gpu(dtype: DType) -> Cuda {
    Cuda::new(0, dtype).expect("feature `cuda` is tested on a machine with a GPU")
}

#[test]
fn float32_answers_like_hf() {
    for name in MODELS {
        let distance = prefill_distance(gpu(DType::F32), name, Some(DType::F32));
        assert!(distance < 1e-3, "{name}: off by {distance}");
        let (distance, same) = decode_distance(gpu(DType::F32), name, Some(DType::F32));
        assert_eq!(same, NEW, "{name}");
        assert!(distance < 1e-3, "{name}: off by {distance} after {NEW} tokens");
        engine_answers_like_hf(gpu(DType::F32), name);
    }
}

#[test]
fn bfloat16_is_near_hf() {
    for name in MODELS {
        // Activations of 8 bits of mantissa, and logits up to 5.
        let distance = prefill_distance(gpu(DType::BF16), name, Some(DType::BF16));
        assert!(distance < 0.1, "{name}: off by {distance}");
        let (distance, same) = decode_distance(gpu(DType::BF16), name, Some(DType::BF16));
        assert!(distance < 0.1, "{name}: off by {distance} after {NEW} tokens");
        assert!(same >= NEW - 6, "{name}: {same} of {NEW} tokens");
    }
}

#[test]
fn a_thousand_sequences_finish_as_if_alone() {
    // Steps of another number of sequences take other kernels: a draw between two near numbers may fall differently.
    for policy in [Policy::Full, Policy::Lim] {
        all_finish_as_if_alone(|| gpu(DType::F32), &tiny::attention(policy, 24), 950);
    }
}

/// Every policy decodes, selects beyond the budget and within it is `full`, bit for bit; steps are replayed recordings.
#[test]
fn every_policy_runs() {
    let decoded = |policy, budget| {
        let attention = tiny::attention(policy, budget);
        let mut options = options();
        options.extras = PageExtras { bounds: true, gates: true };
        let mut engine = engine_on(gpu(DType::F32), DType::F32, attention, options);
        let ids: Vec<_> =
            [greedy(60, 1, 40), greedy(10, 2, 30)].into_iter().flat_map(|r| engine.add(r).unwrap()).collect();
        (run(&mut engine, &ids).0, engine.usage().unwrap().sparsity())
    };
    let (full, dense) = decoded(Policy::Full, 0);
    for policy in Policy::ALL.into_iter().filter(|&policy| policy != Policy::Full) {
        assert_eq!(decoded(policy, 128).0, full, "{policy}");
        let (first, sparsity) = decoded(policy, 24);
        assert!(sparsity.selections > 0, "{policy}");
        assert!(sparsity.mean_attended_tokens < dense.mean_attended_tokens, "{policy}");
        assert_eq!(decoded(policy, 24).0, first, "{policy}: a second run differs");
    }
}

#[test]
fn what_layers_keep_is_what_the_cpu_finds() {
    crate::watching::all_is_seen_as_on_the_cpu(|| gpu(DType::F32));
}
