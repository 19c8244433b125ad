//! `inspect`, `doctor`, `completions` and `man`.

use crate::run::{keys, lim};

#[test]
fn inspect_shows_the_roles_under_the_flags() {
    let out = lim(&["inspect", "--output", "json", "--layers", "dense=0,select=1,3s"]).json();
    let roles: Vec<&str> =
        out["roles"].as_array().expect("roles").iter().filter_map(|r| r.as_str()).collect();
    assert_eq!(roles, ["dense", "select", "reuse", "select own sparse", "reuse", "reuse", "reuse", "reuse"]);
    assert_eq!(out["kv_bytes_per_1k_tokens"].as_u64(), Some(1024 * 8 * 2 * 2 * 64 * 2));
    let text = lim(&["inspect"]).ok();
    for subject in ["model", "parameters", "heads", "weights", "KV cache", "attention", "layers"] {
        assert!(text.lines().any(|line| line.starts_with(subject)), "{subject} in {text}");
    }
}

#[test]
fn doctor_checks_the_machine_and_the_model() {
    let out = lim(&["doctor", "--output", "json", "--quiet"]).json();
    assert_eq!(keys(&out), ["ok", "checks"]);
    assert_eq!(out["ok"], true);
    let names: Vec<&str> =
        out["checks"].as_array().expect("checks").iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["cpu", "memory", "read", "gpu", "cache", "demo model"]);
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = lim(&["completions", shell]).ok();
        assert!(script.contains("token-budget"), "{shell}");
    }
}

#[test]
fn manual_pages() {
    let page = lim(&["man"]).ok();
    assert!(page.contains(".TH lim-cli 1"), "{page}");
    let dir = tempfile::tempdir().expect("a directory");
    lim(&["man", "--dir", dir.path().to_str().expect("UTF-8")]).ok();
    for name in [
        "lim-cli.1",
        "lim-cli-generate.1",
        "lim-cli-score.1",
        "lim-cli-bench.1",
        "lim-cli-eval.1",
        "lim-cli-calibrate.1",
        "lim-cli-man.1",
    ] {
        let page = std::fs::read_to_string(dir.path().join(name)).expect(name);
        assert!(page.contains(".TH"), "{name}");
    }
}
