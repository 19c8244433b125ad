//! `--model`: checkpoints of every family against HF's own tokens, and what lies beside the weights.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::run::lim;

/// A golden model: in this checkout or, for tests that were carried to another machine, in the one they are run from.
fn golden(name: &str) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let checkout = if sources.is_dir() { sources } else { PathBuf::new() };
    checkout.join("lim-model/tests/goldens/models").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

fn write(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).expect("written");
}

/// The demo model in a directory of its own, to be changed.
fn copy_of_demo() -> tempfile::TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/lim-demo");
    let to = tempfile::tempdir().expect("a directory");
    for file in std::fs::read_dir(from).expect("the model") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), to.path().join(file.file_name())).expect("copied");
    }
    to
}

fn generate(model: &Path, args: &[&str]) -> Value {
    let common = ["generate", "--model", text(model), "--output", "json", "--quiet", "--device", "cpu"];
    lim(&[&common[..], args].concat()).json()
}

/// Generates what HF generated, in float32, and checks the tokens.
pub(crate) fn answers_like_hf(name: &str, device: &str) {
    let dir = golden(name);
    let expected = &read(&dir.join("expected.json"))["generate"];
    let ids: Vec<String> = expected["prompt"].as_array().expect("ids").iter().map(Value::to_string).collect();
    let count = expected["new"].as_array().expect("ids").len().to_string();
    let model =
        ["generate", "--model", text(&dir), "--device", device, "--dtype", "f32", "--attention", "full"];
    let draw = ["--prompt-ids", &ids.join(","), "-n", &count, "--ignore-eos", "--temperature", "0"];
    let out = lim(&[&model[..], &draw, &["--output", "json", "--quiet"]].concat()).json();
    assert_eq!(out["samples"][0]["token_ids"], expected["new"], "{name} on {device}");
    assert_eq!(out["prompt_ids"], expected["prompt"]);
    assert_eq!(out["model"], name);
}

#[test]
fn seer_reads_the_gates_beside_the_model() {
    let model = copy_of_demo();
    let seer =
        ["walk ab bc ca from a 4", "-n", "30", "--ignore-eos", "--attention", "seer", "--token-budget", "32"];
    let out = generate(model.path(), &seer);
    assert_eq!(out["attention"]["policy"], "seer");
    assert_eq!(out["attention"]["recent_ratio"], Value::Null);
    assert_eq!(out["attention"]["select_layers"], json!([0, 1, 2, 3, 4, 5, 6, 7]));
    // From 33 cached tokens on, in each of 8 layers.
    let selections = out["sparsity"]["selections"].as_u64().expect("a number");
    assert!(selections > 0 && selections.is_multiple_of(8), "{selections}");
    assert!(
        out["sparsity"]["mean_attended_tokens"].as_f64() < out["sparsity"]["mean_context_tokens"].as_f64()
    );

    let at = ["generate", "--model", text(model.path()), "--device", "cpu"];
    let other = lim(&[&at[..], &seer, &["--page-size", "32"]].concat());
    assert_eq!(other.code, 2, "{}", other.stderr);
    let words = "--page-size does not go with --attention seer: the gates of";
    assert!(other.stderr.contains(words), "{}", other.stderr);

    std::fs::remove_file(model.path().join("seer.safetensors")).expect("removed");
    let without = lim(&[&at[..], &seer].concat());
    assert_eq!((without.code, without.stdout.as_str()), (1, ""));
    for words in
        ["--attention seer needs gates that were distilled from the model: ", ": no seer.safetensors"]
    {
        assert!(without.stderr.contains(words), "no {words:?} in {}", without.stderr);
    }
    // Nobody else looks for them.
    generate(model.path(), &["walk ab bc ca from a 4", "-n", "2", "--attention", "quest"]);
}

#[test]
fn greedy_tokens_are_those_of_hf_transformers() {
    for name in
        ["qwen3-tied-bf16", "qwen2-default", "llama-llama3-sharded", "mistral-yarn-mscale", "llama-f16"]
    {
        answers_like_hf(name, "cpu");
    }
}

#[test]
fn a_model_without_a_tokenizer_takes_ids_only() {
    let dir = golden("qwen3-tied-bf16");
    let refused = lim(&["generate", "hello", "--model", text(&dir)]).usage();
    assert!(refused.contains("tokenizer.json") && refused.contains("--prompt-ids"), "{refused}");
    let run = lim(&["generate", "--prompt-ids", "5,6", "-n", "3", "--model", text(&dir), "--device", "cpu"]);
    assert!(run.stderr.contains("token ids"), "{}", run.stderr);
    assert_eq!(run.ok().trim(), "");
    let no_prompt = lim(&["generate", "--model", text(&dir)]).usage();
    assert!(no_prompt.contains("--prompt-file"), "{no_prompt}");
}

#[test]
fn lim_json_sets_the_defaults_and_flags_override_it() {
    let dir = copy_of_demo();
    let file = dir.path().join("lim.json");
    write(&file, &json!({"attention": {"policy": "streaming", "token_budget": 64, "sinks": 2}}));
    let out = generate(dir.path(), &["edit ab ba", "-n", "2"]);
    assert_eq!(out["attention"]["policy"], "streaming");
    assert_eq!(out["attention"]["token_budget"], 64);
    assert_eq!(out["samples"][0].get("check"), None, "only the embedded model is judged");
    let out = generate(dir.path(), &["edit ab ba", "-n", "2", "--token-budget", "32"]);
    assert_eq!((&out["attention"]["token_budget"], &out["attention"]["sinks"]), (&json!(32), &json!(2)));
    let out = generate(dir.path(), &["edit ab ba", "-n", "2", "--attention", "lim"]);
    assert_eq!(out["attention"]["token_budget"], 2048, "the file's settings belong to another policy");
    for (bad, word) in [
        (json!({"attention": {"budget": 1}}), "budget"),
        (json!({"attention": {"sinks": 9999, "token_budget": 64, "policy": "streaming"}}), "sinks is 9999"),
    ] {
        write(&file, &bad);
        let run = lim(&["generate", "edit ab ba", "--model", text(dir.path())]);
        assert_eq!(run.code, 1, "a bad file is no bad usage");
        assert!(run.stderr.contains("lim.json") && run.stderr.contains(word), "{}", run.stderr);
    }
}

#[test]
fn chat_flags_reach_the_template_or_are_refused() {
    let dir = copy_of_demo();
    let refuse =
        |flags: &[&str]| lim(&[&["generate", "x", "--model", text(dir.path())][..], flags].concat()).usage();
    assert!(refuse(&["--system", "be brief"]).contains("no place for a system message"));
    assert!(refuse(&["--thinking", "off"]).contains("enable_thinking"));

    let config = dir.path().join("tokenizer_config.json");
    let mut value = read(&config);
    value["chat_template"] = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}\
        {% if enable_thinking is defined and not enable_thinking %}calm{% endif %}"
        .into();
    write(&config, &value);
    let length = |flags: &[&str]| {
        let out = generate(dir.path(), &[&["x", "-n", "1"], flags].concat());
        out["prompt_ids"].as_array().expect("ids").len()
    };
    let plain = length(&[]);
    assert_eq!(plain, "user:x\n".len());
    assert_eq!(length(&["--system", "yes"]), plain + "system:yes\n".len());
    assert_eq!(length(&["--thinking", "off"]), plain + "calm".len());
    assert_eq!(length(&["--thinking", "on"]), plain);
    assert_eq!(length(&["--raw"]), 1);

    value.as_object_mut().expect("an object").remove("chat_template");
    write(&config, &value);
    assert_eq!(length(&[]), 1, "without a template the prompt is raw");
    assert!(refuse(&["--chat"]).contains("no chat template"));
}

#[test]
fn a_thinking_budget_closes_the_thinking() {
    let dir = copy_of_demo();
    let file = dir.path().join("tokenizer.json");
    let mut value = read(&file);
    // One of the unused tokens becomes the one that ends thinking.
    let vocab = value["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let unused = vocab.keys().find(|k| k.starts_with("<unused")).expect("an unused token").clone();
    let id = vocab.remove(&unused).expect("its id");
    vocab.insert("</think>".into(), id.clone());
    let token = json!({"id": id, "content": "</think>", "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": false});
    value["added_tokens"].as_array_mut().expect("a list").push(token);
    write(&file, &value);
    let out =
        generate(dir.path(), &["edit kitten sitting", "-n", "250", "--ignore-eos", "--thinking-budget", "7"]);
    let ids = out["samples"][0]["token_ids"].as_array().expect("ids");
    let at = ids.iter().position(|i| *i == id).expect("the end of thinking");
    assert!(at >= 7, "after the budget: {at}");
    let text = out["samples"][0]["text"].as_str().expect("text");
    assert!(text.contains("</think>"), "{text}");
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_named() {
    let dir = copy_of_demo();
    let config = dir.path().join("config.json");
    let mut value = read(&config);
    value["architectures"] = json!(["MambaForCausalLM"]);
    write(&config, &value);
    let run = lim(&["inspect", "--model", text(dir.path())]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("MambaForCausalLM") && run.stderr.contains("Qwen3ForCausalLM"),
        "{}",
        run.stderr
    );
    std::fs::remove_file(dir.path().join("model.safetensors")).expect("removed");
    value["architectures"] = json!(["Qwen3ForCausalLM"]);
    write(&config, &value);
    let run = lim(&["generate", "x", "--model", text(dir.path())]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("model.safetensors"), "{}", run.stderr);
}

#[test]
fn the_hub_is_not_asked_offline() {
    let cache = tempfile::tempdir().expect("a directory");
    let run = crate::run::command(&["inspect", "--model", "no-such-org/no-such-model"])
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HUB_CACHE", cache.path())
        .output()
        .expect("runs");
    assert_eq!(run.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(stderr.contains("no-such-org/no-such-model") && stderr.contains("HF_HUB_OFFLINE"), "{stderr}");
}
