//! `calibrate` on the demo model: what it measures, chooses and writes, and that what it writes is loaded again.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::run::{Run, keys, lim};

/// Three problems, short answers, few steps.
const SHORT: [&str; 8] = ["--demo", "1", "-n", "160", "--steps", "30", "--device", "cpu"];

fn calibrate(args: &[&str]) -> Run {
    lim(&[&["calibrate"][..], &SHORT, args].concat())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The demo model in a directory of its own, with a lim.json.
fn model(lim_json: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    for entry in
        fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/lim-demo")).expect("the demo model")
    {
        let path = entry.expect("a file").path();
        fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    fs::write(dir.path().join("lim.json"), lim_json).expect("written");
    let path = dir.path().to_str().expect("UTF-8").to_owned();
    (dir, path)
}

#[test]
fn layers_are_chosen_and_compared() {
    let report = calibrate(&["--token-budget", "32,64", "--output", "json", "--quiet"]).json();
    assert_eq!(
        keys(&report),
        [
            "model",
            "device",
            "dtype",
            "prompts",
            "sampling",
            "sequences",
            "generated_tokens",
            "goal",
            "layers",
            "budgets"
        ]
    );
    let budgets = report["budgets"].as_array().expect("budgets");
    assert_eq!(budgets.len(), 2);
    assert_eq!(report["layers"], budgets[0]["chosen"]["layers"]);
    for (budget, tokens) in budgets.iter().zip([32.0, 64.0]) {
        assert_eq!(
            keys(budget),
            [
                "token_budget",
                "steps",
                "mean_context_tokens",
                "chosen",
                "default",
                "most_kept",
                "counts",
                "tried",
                "mean",
                "worst_head",
                "least"
            ]
        );
        assert_eq!(number(&budget["token_budget"]), tokens);
        assert!(
            number(&budget["steps"]) >= 20.0 && number(&budget["mean_context_tokens"]) > tokens,
            "{budget}"
        );
        let [chosen, default] = [&budget["chosen"], &budget["default"]];
        assert_eq!(default["layers"], "dense=0-1,select=2,5");
        let divergence = |figures: &Value| number(&figures["diverges"]["mean"]);
        assert!(divergence(chosen) <= divergence(default), "{budget}");
        // As many layers read a set, so the most mass is the most in the mean.
        let most_kept = &budget["most_kept"];
        assert!(
            [chosen, default].iter().all(|f| number(&most_kept["kept"]) >= number(&f["kept"])),
            "{budget}"
        );
        let context = number(&budget["mean_context_tokens"]);
        for figures in [chosen, default, most_kept] {
            // Two dense and two select layers of eight.
            let attended = (4.0 * context + 4.0 * tokens) / 8.0;
            assert!((number(&figures["mean_attended_tokens"]) - attended).abs() < 1e-9, "{figures}");
            let layers = figures["by_layer"].as_array().expect("layers");
            for (reader, layer) in layers.iter().enumerate() {
                let Some(select) = layer["reads"].as_u64() else {
                    assert_eq!(number(&layer["kept"]), 1.0);
                    continue;
                };
                let pair = number(&budget["mean"][select as usize][reader]);
                assert!((number(&layer["kept"]) - pair).abs() < 1e-12, "{layer}");
                assert_eq!(layer["heads"].as_array().map(Vec::len), Some(8));
                let worst = number(&budget["worst_head"][select as usize][reader]);
                assert!(layer["heads"].as_array().expect("heads").iter().any(|head| number(head) == worst));
                assert_eq!(layer["least"], budget["least"][select as usize][reader]);
            }
        }
        assert_eq!((&budget["mean"][5][4], budget["mean"][5][5].is_f64()), (&Value::Null, true));
        let counts = budget["counts"].as_array().expect("counts");
        assert_eq!((counts.len(), &counts[1]), (6, most_kept));
        // With all layers behind the dense ones selecting, every layer reads everything.
        assert_eq!((number(&counts[5]["kept"]), divergence(&counts[5])), (1.0, 0.0));
        let tried = budget["tried"].as_array().expect("tried");
        let shown = tried.iter().find(|tried| tried["layers"] == chosen["layers"]).expect("tried");
        assert_eq!(shown["mean"], chosen["diverges"]["mean"]);
    }
}

#[test]
fn threads_and_batches_change_nothing() {
    let run = |batch: &str, threads: &str| {
        let mut report = calibrate(&[
            "--token-budget",
            "32",
            "--output",
            "json",
            "-q",
            "--batch",
            batch,
            "--threads",
            threads,
        ])
        .json();
        report["device"] = Value::Null;
        report
    };
    assert_eq!(run("1", "1"), run("3", "2"));
}

#[test]
fn a_floor_holds_in_every_layer() {
    for own in [&[][..], &["--own-sparse"]] {
        let args = ["--token-budget", "64", "--floor", "0.8", "--output", "json", "-q"];
        let report = calibrate(&[&args[..], own].concat()).json();
        let chosen = &report["budgets"][0]["chosen"];
        let layers = chosen["by_layer"].as_array().expect("layers");
        assert!(layers.iter().all(|layer| number(&layer["kept"]) >= 0.8), "{chosen}");
        let text = chosen["layers"].as_str().expect("text").replace("dense", "").replace("select", "");
        assert_eq!(text.contains('s'), !own.is_empty(), "{chosen}");
    }
}

#[test]
fn the_models_own_file_gets_the_choice_and_is_loaded_again() {
    let before = r#"{"attention": {"sinks": 2, "layers": "dense=0,select=1,6"}}"#;
    let (dir, path) = model(before);
    let text = || fs::read_to_string(dir.path().join("lim.json")).expect("there");
    let args = ["--model", &path, "--token-budget", "48", "--select", "3"];
    let run = calibrate(&args);
    assert!(run.stderr.contains("nothing was written"), "{}", run.stderr);
    let advice = run.ok();
    assert_eq!(text(), before);
    let layers = advice.split_whitespace().nth(2).expect("use --layers LAYERS").to_owned();
    let start = format!("Use --layers {layers} with --token-budget 48: 3 select layers, those with which");
    assert!(advice.starts_with(&start), "{advice}");
    assert!(
        advice.contains("With the default, dense=0,select=1,6, what the model would say is "),
        "{advice}"
    );
    assert!(advice.contains("Compare answers: lim-cli eval"), "{advice}");

    let run = calibrate(&[&args[..], &["--write"]].concat());
    assert!(run.stderr.contains("lim.json replaces the one that was there: "), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("layers \"dense=0,select=1,6\" -> \"{layers}\"")), "{}", run.stderr);
    assert_eq!(run.ok(), advice);
    let attention = lim(&["inspect", "--model", &path, "--output", "json"]).json()["attention"].clone();
    let chosen =
        lim(&["inspect", "--layers", &layers, "--token-budget", "48", "--sinks", "2", "--output", "json"])
            .json();
    assert_eq!(attention, chosen["attention"]);
    assert_eq!(attention["select_layers"].as_array().map(Vec::len), Some(3));

    let again = calibrate(&[&args[..], &["--write"]].concat());
    assert!(again.stderr.contains("lim.json is as it was"), "{}", again.stderr);
    assert!(again.stdout.contains("They are what the model selects at by default."), "{}", again.stdout);
}

#[test]
fn a_directory_gets_file_report_and_plots() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("made/for it");
    let run = calibrate(&["--token-budget", "32,64", "--out", out.to_str().expect("UTF-8")]);
    assert!(run.stderr.contains("lim.json is new: "), "{}", run.stderr);
    let advice = run.ok();
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let file: Value = serde_json::from_str(&read("lim.json")).expect("JSON");
    let report: Value = serde_json::from_str(&read("calibration.json")).expect("JSON");
    // What the model's own file says besides stays.
    assert_eq!(
        file["attention"],
        json!({"policy": "lim", "token_budget": 32, "recent_ratio": 0.25, "sinks": 4, "layers": report["layers"]})
    );
    let markdown = read("report.md");
    assert!(markdown.contains(&advice) && markdown.contains("## Layers at K = 64"), "{markdown}");
    let table = markdown.lines().filter(|line| line.starts_with('|'));
    let cells: Vec<usize> = table.map(|line| line.matches(" | ").count()).collect();
    let rows = |budget: usize, list: &str| report["budgets"][budget][list].as_array().expect("a list").len();
    // Head, rule, chosen and default above the counts; then head, rule and eight layers, and head, rule and what was tried.
    let tables = [[8].repeat(4 + rows(0, "counts")), [8].repeat(4 + rows(1, "counts"))];
    let more = [0, 1].map(|budget| [[8].repeat(10), [2].repeat(2 + rows(budget, "tried"))].concat());
    assert_eq!(cells, [tables.concat(), more.concat()].concat(), "{markdown}");
    for name in ["heat.svg", "layers.svg"] {
        assert!(markdown.contains(&format!("![{name}]({name})")), "{markdown}");
        check_svg(&read(name), 2);
    }
}

/// A whole picture of some panels.
pub(crate) fn check_svg(text: &str, panels: usize) {
    assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{text}");
    assert_eq!(text.matches("<g transform=\"translate(0 ").count(), panels, "{text}");
    assert_eq!(text.matches("<g ").count(), text.matches("</g>").count(), "{text}");
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn prompts_come_from_files_of_two_kinds() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| -> String {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let problems =
        file("p.jsonl", "{\"problem\": \"edit kitten sitting\"}\n{\"prompt\": \"walk ab ba from a 40\"}\n");
    let text = file("one.txt", "walk ab bc ca from a 60\n");
    let args = ["calibrate", &problems, &text, "-n", "80", "--token-budget", "32", "--device", "cpu"];
    let report = lim(&[&args[..], &["--output", "json", "-q"]].concat()).json();
    assert_eq!(
        (report["sequences"].as_u64(), &report["prompts"]),
        (Some(3), &json!("p.jsonl + one.txt, 3 prompts"))
    );
    let refused = |path: &str, words: &str| {
        let message = lim(&["calibrate", path, "--device", "cpu"]).usage();
        assert!(message.contains(words), "{message}");
    };
    refused(&file("empty.txt", "\n"), "empty.txt: the prompt is empty");
    refused(&file("bad.jsonl", "{\"text\": 1}"), "bad.jsonl line 1: no question");
    let missing = lim(&["calibrate", "/no/such/file.txt", "--device", "cpu"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("/no/such/file.txt"), "{}", missing.stderr);
}

#[test]
fn what_cannot_be_chosen_is_said_before_anything_is_loaded() {
    for (args, words) in [
        (&["--write"][..], "--out DIR"),
        (&["--select", "7"], "--select 7: behind 2 dense layers the model has room for 1 to 6"),
        (&["--dense", "8"], "--dense 8: of 8 layers at least one must select"),
        (&["--floor", "1.5"], "--floor is 1.5, must be from 0 to 1"),
        (&["--floor", "0.9", "--select", "2"], "cannot be used with"),
        (&["--token-budget", "0"], "--token-budget is 0"),
        (&["--recent-ratio", "2"], "--recent-ratio is 2"),
        (&["--steps", "0"], "--steps"),
    ] {
        let message = calibrate(args).usage();
        assert!(message.contains(words), "{args:?}: {message}");
    }
    let short = calibrate(&["--token-budget", "64,4000", "-q"]);
    assert_eq!((short.code, short.stdout.as_str()), (1, ""));
    assert!(
        short.stderr.contains("--token-budget 4000: no decode step had more cached tokens"),
        "{}",
        short.stderr
    );
}

#[test]
fn settings_of_another_policy_are_no_default() {
    let (dir, path) = model(r#"{"attention": {"policy": "quest", "token_budget": 64}}"#);
    let run = calibrate(&["--model", &path, "--token-budget", "48", "--write"]);
    assert!(run.stderr.contains("policy \"quest\" -> \"lim\""), "{}", run.stderr);
    assert!(run.ok().contains("dense=0-1,select=2-3"), "the rule for models of eight layers");
    let file = fs::read_to_string(Path::new(dir.path()).join("lim.json")).expect("there");
    let file: Value = serde_json::from_str(&file).expect("JSON");
    assert_eq!(keys(&file["attention"]), ["policy", "token_budget", "layers"]);
}
