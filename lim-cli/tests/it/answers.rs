//! The demo model: answers, not just "it ran".

use serde_json::Value;

use crate::run::lim;

fn solve(args: &[&str]) -> Value {
    lim(&[&["generate", "--output", "json", "--quiet", "--device", "cpu"][..], args].concat()).json()
}

/// How many of six sample problems, two of each task, are answered rightly under `flags`.
fn right(flags: &[&str]) -> usize {
    let solved = |seed: usize| {
        let out = solve(&[&["--seed", &seed.to_string()][..], flags].concat());
        let check = &out["samples"][0]["check"];
        if check["correct"] != true {
            eprintln!("seed {seed} {flags:?}: {check}");
        }
        check["correct"] == true
    };
    (0..6).filter(|&seed| solved(seed)).count()
}

#[test]
fn sample_problems_are_solved_by_the_defaults() {
    assert!(right(&[]) >= 5);
}

#[test]
fn sample_problems_are_solved_densely() {
    assert!(right(&["--attention", "full"]) >= 5);
}

#[test]
fn the_defaults_are_sparse_at_work() {
    let out = solve(&["--seed", "0"]);
    assert_eq!(out["attention"]["policy"], "lim");
    let sparsity = &out["sparsity"];
    let (attended, context) = (&sparsity["mean_attended_tokens"], &sparsity["mean_context_tokens"]);
    assert!(attended.as_f64().zip(context.as_f64()).is_some_and(|(a, c)| a < 0.9 * c), "{sparsity}");
}

#[test]
fn without_a_prompt_a_problem_is_solved_and_judged() {
    let run = lim(&["generate", "--device", "cpu"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let line = |subject: &str| run.stderr.lines().find(|l| l.starts_with(subject)).map(str::to_owned);
    assert!(line("problem").is_some_and(|l| l.contains("edit ")), "{}", run.stderr);
    let answer = run.stdout.trim_end().rsplit('=').next().expect("an answer");
    assert_eq!(
        line("answer").as_deref(),
        Some(format!("answer     {answer}: right").as_str()),
        "{}",
        run.stderr
    );
}

#[test]
fn problems_of_the_user_are_judged_too() {
    let out = solve(&["edit kitten sitting"]);
    let check = &out["samples"][0]["check"];
    assert_eq!(check["task"], "edit");
    assert_eq!(check["expected"], "3");
    assert_eq!(check["answer"], "3", "{}", out["samples"][0]["text"]);
    assert_eq!(check["correct"], true);
    assert_eq!(out["samples"][0]["finish_reason"], "stop");
}

#[test]
fn an_answer_that_is_cut_off_is_none() {
    let out = solve(&["edit kitten sitting", "-n", "5"]);
    let check = &out["samples"][0]["check"];
    assert_eq!((check["answer"].is_null(), check["correct"].as_bool()), (true, Some(false)));
}

#[test]
fn other_prompts_are_not_judged() {
    let out = solve(&["hello there", "-n", "4"]);
    assert_eq!(out["samples"][0].get("check"), None);
}
