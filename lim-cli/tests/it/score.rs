//! `score`: keys, counts, and agreement of its two phases.

use serde_json::Value;

use crate::run::{keys, lim};

const IDS: &str = "40,50,60,70,41,51,61,71,42,52,62,72,43,53,63,73,44,54,64,74,45,55,65,75";

fn score(args: &[&str]) -> Value {
    lim(&[&["score", "--output", "json", "--quiet", "--device", "cpu"][..], args].concat()).json()
}

fn nll(out: &Value) -> Vec<f64> {
    out["nll"].as_array().expect("nll").iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// Written so that NaN fails.
#[track_caller]
fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance, "value {i}: {a} and {b}");
    }
}

#[test]
fn n_ids_give_one_value_less() {
    let out = score(&["--prompt-ids", IDS]);
    for key in ["tokens", "nll_mean", "perplexity", "nll", "attention"] {
        assert!(keys(&out).contains(&key), "{key}");
    }
    let values = nll(&out);
    assert_eq!((values.len(), out["tokens"].as_u64()), (23, Some(23)));
    let mean = values.iter().sum::<f64>() / 23.0;
    assert_close(&[out["nll_mean"].as_f64().expect("a mean")], &[mean], 1e-5);
    assert_close(&[out["perplexity"].as_f64().expect("a number")], &[mean.exp()], 1e-4 * mean.exp());
    assert!(values.iter().all(|v| *v > 0.0));
}

#[test]
fn prefill_and_decode_agree() {
    let decoded = nll(&score(&["--prompt-ids", IDS, "--attention", "full", "--dtype", "f32"]));
    for prefill in ["7", "23", "24"] {
        let args = ["--prompt-ids", IDS, "--attention", "full", "--dtype", "f32", "--prefill", prefill];
        assert_close(&nll(&score(&args)), &decoded, 2e-4);
    }
}

#[test]
fn a_small_budget_changes_what_is_likely_only_beyond_it() {
    let full = nll(&score(&["--prompt-ids", IDS, "--attention", "full"]));
    let out =
        score(&["--prompt-ids", IDS, "--attention", "streaming", "--token-budget", "8", "--sinks", "1"]);
    let small = nll(&out);
    assert_eq!(small[..8], full[..8], "no more than 8 tokens are cached so far");
    assert_ne!(small[8..], full[8..]);
    assert_eq!(out["attention"]["policy"], "streaming");
}

#[test]
fn a_text_is_scored_as_its_ids() {
    let text = score(&["edit ab ba"]);
    assert_eq!(nll(&text).len() as u64, text["tokens"].as_u64().expect("a count"));
    let plain = lim(&["score", "edit ab ba", "--device", "cpu"]);
    assert!(plain.stderr.contains("attention "), "{}", plain.stderr);
    assert!(plain.ok().starts_with("tokens "));
}
