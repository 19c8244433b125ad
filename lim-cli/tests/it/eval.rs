//! `eval` on the demo model: figures, what is refused, and that a killed run goes on as if nothing had happened.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::run::{Run, command, keys, lim};

/// Long and short problems in turn: later ones are finished first.
const PROBLEMS: &str = r#"{"task": "prog", "prompt": "prog x3 y7 do 9 Ax=x+y,By=y*x;", "answer": "x0y0"}
{"task": "edit", "prompt": "edit ab ba", "answer": "2"}
{"task": "edit", "prompt": "edit kitten sitting", "answer": "3"}
{"task": "walk", "prompt": "walk ab bc ca from a 4", "answer": "b"}
{"task": "walk", "prompt": "walk ab bc ca from a 60", "answer": "a"}
{"task": "edit", "prompt": "edit abc abd", "answer": "9"}
"#;

fn problems() -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("problems.jsonl");
    fs::write(&file, PROBLEMS).expect("written");
    (dir, file.to_str().expect("UTF-8").to_owned())
}

fn eval(args: &[&str]) -> Run {
    lim(&[&["eval", "--device", "cpu", "--quiet"][..], args].concat())
}

fn row<'a>(report: &'a Value, setting: &str, group: Option<&str>) -> &'a Value {
    let rows = report["rows"].as_array().expect("rows");
    let is = |row: &&Value| row["setting"] == setting && row["group"].as_str() == group;
    rows.iter().find(is).unwrap_or_else(|| panic!("no {setting} {group:?} in {report}"))
}

#[test]
fn settings_are_compared_by_task() {
    let (_dir, file) = problems();
    let report = eval(&[&file, "--attention", "full,lim:32", "--output", "json"]).json();
    assert_eq!(keys(&report), ["model", "device", "dtype", "problems", "sampling", "settings", "rows"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(2 * 4));
    let all = row(&report, "full", None);
    assert_eq!(
        keys(all),
        [
            "setting",
            "group",
            "problems",
            "samples",
            "pass_at_1",
            "pass_at_1_se",
            "majority",
            "mean_tokens",
            "p95_tokens",
            "truncated",
            "ungraded",
            "mean_context_tokens",
            "mean_attended_tokens"
        ]
    );
    // The last answer in the file is a wrong one.
    assert_eq!((all["problems"].as_u64(), all["pass_at_1"].as_f64()), (Some(6), Some(5.0 / 6.0)));
    assert_eq!(row(&report, "full", Some("walk"))["pass_at_1"], 1.0);
    assert_eq!(all["mean_context_tokens"], all["mean_attended_tokens"]);
    let sparse = row(&report, "lim:32", None);
    assert!(sparse["mean_attended_tokens"].as_f64() < sparse["mean_context_tokens"].as_f64(), "{sparse}");
}

#[test]
fn what_attention_read_is_what_generate_counts() {
    let args = ["generate", "walk ab bc ca from a 60", "--device", "cpu", "--quiet", "--output", "json"];
    let generated = lim(&args).json();
    let (dir, file) = problems();
    let report = eval(&[&file, "--out", dir.path().to_str().expect("UTF-8"), "--output", "json"]).json();
    assert_eq!(report["settings"][0]["attention"], generated["attention"]);
    // The same problem, solved beside five others.
    let counts = fs::read_to_string(dir.path().join("counts.jsonl")).expect("counts");
    let count: Value = serde_json::from_str(counts.lines().nth(4).expect("six lines")).expect("JSON");
    for (key, counted) in
        [("context_tokens", "mean_context_tokens"), ("attended_tokens", "mean_attended_tokens")]
    {
        let [shared, alone] =
            [&count[key], &generated["sparsity"][counted]].map(|v| v.as_f64().expect("a number"));
        assert!((shared - alone).abs() < 1e-3, "{key}: {shared} beside others, {alone} alone");
    }
}

/// Runs until `lines` lines of results are there, then kills the process outright.
fn kill_after(args: &[&str], dir: &Path, lines: usize) {
    let mut child =
        command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("lim-cli starts");
    let begun = Instant::now();
    while fs::read(dir.join("results.jsonl")).map_or(0, |t| t.iter().filter(|&&b| b == b'\n').count()) < lines
    {
        assert!(child.try_wait().expect("a state").is_none(), "it ended by itself");
        assert!(begun.elapsed() < Duration::from_secs(120), "no {lines} results");
        std::thread::sleep(Duration::from_millis(1));
    }
    // On Unix this is SIGKILL.
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[test]
fn a_killed_run_goes_on_byte_for_byte() {
    let (_dir, file) = problems();
    let [whole, killed] = [0; 2].map(|_| tempfile::tempdir().expect("a directory"));
    let flags = |out: &TempDir, batch: &str| -> Vec<String> {
        let args = ["eval", &file, "--device", "cpu", "--quiet", "--attention", "full,lim"];
        let more =
            ["--token-budget", "32", "--samples", "2", "--temperature", "0.7", "-n", "120", "--seed", "5"];
        let out = ["--batch", batch, "--out", out.path().to_str().expect("UTF-8")];
        [&args[..], &more, &out].concat().into_iter().map(str::to_owned).collect()
    };
    fn strs(args: &[String]) -> Vec<&str> {
        args.iter().map(String::as_str).collect()
    }
    let table = lim(&strs(&flags(&whole, "4"))).ok();

    // Another batch, on purpose: a sequence's tokens do not depend on what runs beside it.
    let again = flags(&killed, "3");
    let again = strs(&again);
    let results = killed.path().join("results.jsonl");
    kill_after(&again, killed.path(), 5);
    let left = fs::read(&results).expect("results");
    assert!(left.iter().filter(|&&b| b == b'\n').count() < 24, "killed too late");
    // As if the kill had come in the middle of a write.
    fs::write(&results, &left[..left.len() - 7]).expect("written");
    kill_after(&again, killed.path(), 13);
    assert_eq!(lim(&again).ok(), table);

    for name in ["results.jsonl", "counts.jsonl", "report.md", "accuracy.svg", "length.svg", "run.json"] {
        let [a, b] = [&whole, &killed].map(|dir| fs::read(dir.path().join(name)).expect(name));
        assert!(a == b, "{name} differs:\n{}\n{}", String::from_utf8_lossy(&a), String::from_utf8_lossy(&b));
    }
    assert!(!killed.path().join("early.jsonl").exists());
    let text = fs::read_to_string(&results).expect("results");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2 * 6 * 2);
    assert_eq!(
        keys(&lines[0]),
        [
            "setting",
            "problem",
            "group",
            "sample",
            "seed",
            "answer",
            "reference",
            "grade",
            "tokens",
            "finish_reason",
            "text"
        ]
    );

    // Everything is there: it only reports again, and so does a run that may not be.
    assert_eq!(lim(&again).ok(), table);
    let other: Vec<&str> = again.iter().map(|arg| if *arg == "5" { "6" } else { arg }).collect();
    let message = lim(&other).usage();
    assert!(message.contains("sampling.seed is 5 there, 6 here"), "{message}");
}

#[test]
fn a_seed_in_the_results_repeats_the_sample() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().to_str().expect("UTF-8");
    eval(&["--demo", "1", "-n", "40", "--samples", "2", "--temperature", "2", "--out", out]).ok();
    let text = fs::read_to_string(dir.path().join("results.jsonl")).expect("results");
    let record: Value = serde_json::from_str(text.lines().nth(3).expect("four lines")).expect("JSON");
    assert_eq!((record["problem"].as_str(), record["sample"].as_u64()), (Some("walk-0"), Some(1)));
    let problem = lim(&["generate", "--seed", "1", "-n", "1", "--device", "cpu"]).stderr;
    let prompt = problem.lines().find_map(|l| l.strip_prefix("problem")).expect("a problem").trim();
    let seed = record["seed"].to_string();
    let args = ["generate", prompt, "--seed", &seed, "-n", "40", "--temperature", "2", "--device", "cpu"];
    let generated = lim(&[&args[..], &["--output", "json", "--quiet"]].concat()).json();
    assert_eq!(generated["samples"][0]["text"], record["text"]);
}

#[test]
fn what_cannot_be_evaluated_is_said_before_anything_is_loaded() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = |name: &str, text: &str, words: &[&str]| {
        let file = dir.path().join(name);
        fs::write(&file, text).expect("written");
        let message = eval(&[file.to_str().expect("UTF-8")]).usage();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    refused(
        "bad.jsonl",
        "{\"problem\": \"x\", \"answer\": \"1\"}\nnot JSON\n",
        &["bad.jsonl line 2", "JSON"],
    );
    refused(
        "field.jsonl",
        "{\"text\": \"x\", \"answer\": 1}",
        &["line 1", "problem, question, prompt", "text, answer"],
    );
    refused(
        "answer.jsonl",
        "{\"problem\": \"x\"}",
        &["line 1", "no answer", "answer, correct answer, solution"],
    );
    refused("empty.jsonl", "\n", &["empty.jsonl", "no problem"]);
    for (args, words) in [
        (&["--attention", "lime"][..], "there are full, lim"),
        (&["--attention", "lim:x"], "`x` is no token budget"),
        (&["--attention", "lim,lim"], "twice"),
        (&["--attention", "full", "--token-budget", "64"], "--token-budget does not go with"),
        (&["--attention", "lim:64:select=99"], "--layers: no layer 99"),
        (&["--demo", "0"], "--demo"),
        (&["--limit", "3"], "FILE.jsonl"),
        (&["x.jsonl", "--demo", "3"], "cannot be used with"),
        (&["--thinking-budget", "3"], "</think>"),
    ] {
        let message = eval(args).usage();
        assert!(message.contains(words), "{args:?}: {message}");
    }
    let missing = eval(&["/no/such/file.jsonl"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""));
    assert!(missing.stderr.contains("/no/such/file.jsonl"), "{}", missing.stderr);
}
