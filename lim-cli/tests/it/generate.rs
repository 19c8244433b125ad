//! `generate --output json`: keys, ids, stopping, sampling.

use serde_json::{Value, json};

use crate::run::{keys, lim};

const PROBLEM: &str = "edit ab ba";

/// Nothing the model has seen: it is unsure what follows.
const UNSURE: [&str; 4] = ["--prompt-ids", "40,50,41,60,33", "--temperature", "3"];

fn generate(args: &[&str]) -> Value {
    lim(&[&["generate", "--output", "json", "--quiet", "--device", "cpu"][..], args].concat()).json()
}

fn ids(sample: &Value) -> Vec<u64> {
    let ids = sample["token_ids"].as_array().expect("token_ids");
    ids.iter().map(|id| id.as_u64().expect("an id")).collect()
}

#[test]
fn keys_are_the_documented_ones() {
    let out = generate(&[PROBLEM, "-n", "4"]);
    assert_eq!(
        keys(&out),
        ["model", "device", "dtype", "attention", "sampling", "prompt_ids", "samples", "timing", "sparsity"]
    );
    assert_eq!(
        keys(&out["attention"]),
        ["policy", "token_budget", "recent_ratio", "sinks", "top_mass", "dense_layers", "select_layers"]
    );
    assert_eq!(keys(&out["samples"][0]), ["text", "token_ids", "logprobs", "finish_reason", "check"]);
    assert_eq!(
        keys(&out["timing"]),
        ["load_s", "prefill_s", "decode_s", "prefill_tokens_per_s", "decode_tokens_per_s"]
    );
    assert_eq!(
        keys(&out["sparsity"]),
        ["mean_context_tokens", "mean_attended_tokens", "selections", "kv_bytes_read", "kv_bytes_dense"]
    );
    let sampling = keys(&out["sampling"]);
    for key in [
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "seed",
    ] {
        assert!(sampling.contains(&key), "{key} in {sampling:?}");
    }
    assert_eq!(out["samples"][0]["finish_reason"], "length");
    assert_eq!(ids(&out["samples"][0]).len(), 4);
    assert_eq!(out["samples"][0]["logprobs"].as_array().map(Vec::len), Some(4));
}

#[test]
fn every_flag_is_taken_and_reported() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/lim-demo");
    #[rustfmt::skip]
    let out = lim(&[
        "generate", PROBLEM, "-m", model, "--device", "cpu", "--dtype", "f32", "--threads", "2", "--page-size", "32",
        "--attention", "tidal", "--token-budget", "8", "--recent-ratio", "0.5", "--sinks", "1", "--layers", "select=1",
        "--raw", "--max-new-tokens", "9", "--samples", "2", "--temperature", "0.7", "--top-p", "0.9", "--top-k", "5",
        "--min-p", "0.01", "--repetition-penalty", "1.1", "--presence-penalty", "-0.1", "--frequency-penalty", "0.2",
        "--seed", "3", "--stop", "--", "--stop", "never", "--ignore-eos", "--output", "json", "-q",
    ])
    .json();
    assert_eq!(
        out["attention"],
        json!({"policy": "tidal", "token_budget": 8, "recent_ratio": 0.5, "sinks": 1,
               "top_mass": null, "dense_layers": [0], "select_layers": [1]})
    );
    let sampling = &out["sampling"];
    // Numbers are float32 inside, so they come back within its precision.
    for (key, value) in [
        ("temperature", json!(0.7f32)),
        ("top_p", json!(0.9f32)),
        ("top_k", json!(5)),
        ("min_p", json!(0.01f32)),
        ("repetition_penalty", json!(1.1f32)),
        ("presence_penalty", json!(-0.1f32)),
        ("frequency_penalty", json!(0.2f32)),
        ("seed", json!(3)),
        ("samples", json!(2)),
        ("max_new_tokens", json!(9)),
        ("stop", json!(["--", "never"])),
        ("ignore_eos", json!(true)),
    ] {
        let close = match (sampling[key].as_f64(), value.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-6,
            _ => sampling[key] == value,
        };
        assert!(close, "{key}: {} is not {value}", sampling[key]);
    }
    assert_eq!(out["dtype"], "f32");
    assert!(out["device"].as_str().is_some_and(|d| d.starts_with("cpu (2 threads")), "{}", out["device"]);
    assert_eq!(out["samples"].as_array().map(Vec::len), Some(2));
}

#[test]
fn prompt_ids_are_taken_as_they_are() {
    let out = generate(&["--prompt-ids", "5,6,7", "-n", "2"]);
    assert_eq!(out["prompt_ids"], json!([5, 6, 7]));
}

#[test]
fn chat_is_the_default_where_there_is_a_template() {
    let default = generate(&[PROBLEM, "-n", "2"]);
    let chat = generate(&[PROBLEM, "-n", "2", "--chat"]);
    let raw = generate(&[PROBLEM, "-n", "2", "--raw"]);
    assert_eq!(default["prompt_ids"], chat["prompt_ids"]);
    assert_ne!(raw["prompt_ids"], chat["prompt_ids"]);
}

#[test]
fn attention_flags_are_in_force_and_counted() {
    let lim = generate(&[
        PROBLEM,
        "-n",
        "64",
        "--ignore-eos",
        "--attention",
        "lim",
        "--token-budget",
        "16",
        "--recent-ratio",
        "0.5",
        "--sinks",
        "2",
        "--layers",
        "dense=0-1,select=2,5s",
    ]);
    assert_eq!(
        lim["attention"],
        json!({"policy": "lim", "token_budget": 16, "recent_ratio": 0.5, "sinks": 2,
               "top_mass": null, "dense_layers": [0, 1], "select_layers": [2, 5]})
    );
    let number = |value: &Value| value.as_f64().expect("a number");
    let sparsity = &lim["sparsity"];
    assert!(
        number(&sparsity["mean_attended_tokens"]) < number(&sparsity["mean_context_tokens"]),
        "{sparsity}"
    );
    assert!(number(&sparsity["kv_bytes_read"]) < number(&sparsity["kv_bytes_dense"]), "{sparsity}");
    assert!(number(&sparsity["selections"]) > 0.0, "{sparsity}");

    let full = generate(&[PROBLEM, "-n", "64", "--ignore-eos", "--attention", "full"]);
    assert_eq!(full["attention"]["token_budget"], Value::Null);
    assert_eq!(full["sparsity"]["kv_bytes_read"], full["sparsity"]["kv_bytes_dense"]);
    assert_eq!(full["sparsity"]["selections"], 0);
}

#[test]
fn below_the_budget_every_policy_is_full() {
    let run = |policy: &[&str]| {
        let out = generate(&[&[PROBLEM, "-n", "48", "--ignore-eos"][..], policy].concat());
        (out["samples"].clone(), out["sparsity"]["selections"].clone())
    };
    let full = run(&["--attention", "full"]);
    assert_eq!(full.1, 0);
    for policy in ["lim", "tidal", "quest", "seer", "streaming"] {
        assert_eq!(run(&["--attention", policy, "--token-budget", "4096"]), full, "{policy}");
    }
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let whole = generate(&[PROBLEM, "-n", "40"]);
    let text = whole["samples"][0]["text"].as_str().expect("text");
    let stop: String = text.chars().skip(6).take(3).collect();
    let cut = generate(&[PROBLEM, "-n", "40", "--stop", "never in there", "--stop", &stop]);
    let sample = &cut["samples"][0];
    assert_eq!(sample["text"], text[..text.find(&stop).expect("in the text")]);
    assert_eq!(sample["finish_reason"], "stop");
    assert_eq!(cut["sampling"]["stop"], json!(["never in there", stop]));
}

#[test]
fn the_same_seed_draws_the_same() {
    let draw = |seed: &str| {
        generate(&[&UNSURE[..], &["-n", "24", "--ignore-eos", "--seed", seed]].concat())["samples"].clone()
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn samples_differ_and_the_first_is_that_of_a_single_run() {
    let args = [&UNSURE[..], &["-n", "24", "--ignore-eos", "--seed", "1"]].concat();
    let three = generate(&[&args[..], &["--samples", "3"]].concat());
    let one = generate(&args);
    let samples = three["samples"].as_array().expect("samples");
    assert_eq!(samples.len(), 3);
    assert_eq!(samples[0]["token_ids"], one["samples"][0]["token_ids"]);
    assert_ne!(samples[0]["token_ids"], samples[1]["token_ids"]);
    assert_ne!(samples[1]["token_ids"], samples[2]["token_ids"]);
}

#[test]
fn samples_are_printed_in_order_under_headers() {
    let args = [
        "generate",
        PROBLEM,
        "-n",
        "12",
        "--temperature",
        "1.5",
        "--samples",
        "3",
        "--quiet",
        "--device",
        "cpu",
    ];
    let text = lim(&args).ok();
    let heads: Vec<&str> = text.lines().filter(|l| l.starts_with("--- sample")).collect();
    assert_eq!(heads, ["--- sample 1 of 3", "--- sample 2 of 3", "--- sample 3 of 3"]);
}

#[test]
fn greedy_does_not_depend_on_threads() {
    let run = |threads: &str| {
        generate(&[PROBLEM, "-n", "32", "--temperature", "0", "--threads", threads])["samples"].clone()
    };
    let one = run("1");
    assert_eq!(one, run("1"));
    assert_eq!(one, run("2"));
    assert_eq!(one, run("3"));
}

#[test]
fn penalties_change_what_is_drawn() {
    let run = |flags: &[&str]| {
        let args = [&[PROBLEM, "-n", "32", "--ignore-eos"][..], flags].concat();
        generate(&args)["samples"][0]["token_ids"].clone()
    };
    let plain = run(&[]);
    for flag in ["--repetition-penalty", "--presence-penalty", "--frequency-penalty"] {
        assert_ne!(run(&[flag, "100"]), plain, "{flag}");
    }
}

#[test]
fn logprobs_do_not_depend_on_how_tokens_are_drawn() {
    // With one candidate left a hot draw is greedy; its logprobs are still those at temperature 1.
    let greedy = generate(&[PROBLEM, "-n", "16"]);
    let hot = generate(&[PROBLEM, "-n", "16", "--temperature", "5", "--top-k", "1"]);
    assert_eq!(greedy["samples"], hot["samples"]);
}

#[test]
fn types_of_weights_can_be_chosen() {
    let auto = generate(&[PROBLEM, "-n", "2"]);
    let wide = generate(&[PROBLEM, "-n", "2", "--dtype", "f32"]);
    assert_eq!((auto["dtype"].as_str(), wide["dtype"].as_str()), (Some("bf16"), Some("f32")));
}

#[test]
fn page_size_changes_nothing_but_memory() {
    let run = |size: &str| {
        generate(&[PROBLEM, "-n", "64", "--page-size", size, "--attention", "full"])["samples"].clone()
    };
    assert_eq!(run("1"), run("16"));
    assert_eq!(run("64"), run("16"));
}
