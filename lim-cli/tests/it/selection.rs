//! `inspect --selection`: what is marked and drawn is what was kept of what was generated.

use serde_json::Value;

use crate::calibrate::check_svg;
use crate::run::lim;

const PROMPT: [&str; 6] = ["walk ab bc ca from a 60", "-n", "80", "--token-budget", "32", "--device"];

fn inspect(args: &[&str]) -> crate::run::Run {
    lim(&[&["inspect", "--selection"][..], &PROMPT, &["cpu", "--quiet"], args].concat())
}

fn generated() -> Value {
    let args = [&["generate"][..], &PROMPT, &["cpu", "--quiet", "--output", "json"]].concat();
    lim(&args).json()
}

#[test]
fn the_text_is_what_generate_writes_with_marks() {
    let text = inspect(&[]).ok();
    assert!(!text.contains('\x1b'), "stdout is no terminal: {text}");
    for layer in ["layer 2    24 tokens chosen in each of ", "layer 5    24 tokens chosen in each of "] {
        assert!(text.contains(layer), "{text}");
    }
    assert!(text.contains("in the choice of layer 2\n"), "{text}");
    let (_, marked) = text.split_once("could be chosen\n\n").expect("a legend, then the text");
    assert!(marked.contains('[') && marked.contains(']'), "{marked}");
    let plain = marked.replace(['[', ']'], "");
    let answer = generated()["samples"][0]["text"].as_str().expect("text").to_owned();
    assert!(plain.starts_with("walk ab bc ca from a 60") && plain.contains(&answer), "{plain}");
}

#[test]
fn counts_add_up() {
    let json = inspect(&["--output", "json"]).json();
    let generated = generated();
    assert_eq!(json["token_ids"], generated["samples"][0]["token_ids"]);
    assert_eq!(
        (&json["prompt_ids"], &json["attention"]),
        (&generated["prompt_ids"], &generated["attention"])
    );
    let numbers = |value: &Value| -> Vec<u64> {
        value.as_array().expect("a list").iter().map(|n| n.as_u64().expect("a count")).collect()
    };
    let (steps, candidates) = (json["steps"].as_u64().expect("steps"), numbers(&json["candidate_steps"]));
    let tokens = numbers(&json["prompt_ids"]).len() + numbers(&json["token_ids"]).len();
    // The last token is not fed; up to 32 cached tokens there is nothing to select.
    assert_eq!((steps, candidates.len()), (tokens as u64 - 1 - 32, tokens));
    assert_eq!(candidates[..5], [0, 0, 0, 0, steps], "four sinks");
    for layer in json["layers"].as_array().expect("layers") {
        let kept = numbers(&layer["kept_steps"]);
        assert_eq!(kept.iter().sum::<u64>(), 24 * steps);
        assert!(kept.iter().zip(&candidates).all(|(kept, candidate)| kept <= candidate), "{layer}");
    }
}

#[test]
fn the_picture_has_a_panel_a_layer() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("kept.svg");
    inspect(&["--plot", file.to_str().expect("UTF-8"), "--attention", "lim", "--layers", "select=1,3,6"])
        .ok();
    let text = std::fs::read_to_string(file).expect("drawn");
    check_svg(&text, 3);
    assert!(text.contains("what layer 6 kept"), "{text}");
}

#[test]
fn without_a_prompt_the_demo_model_solves_its_sample() {
    let args = [
        "inspect",
        "--selection",
        "-n",
        "8",
        "--token-budget",
        "8",
        "--device",
        "cpu",
        "--quiet",
        "--output",
        "json",
    ];
    assert!(lim(&args).json()["steps"].as_u64().is_some_and(|steps| steps > 0));
}

#[test]
fn what_cannot_be_shown_is_said() {
    let full = inspect(&["--attention", "full"]);
    assert_eq!(full.code, 2, "{}", full.stderr);
    let refused = |args: &[&str], words: &str| {
        let message = lim(&[&["inspect"][..], args].concat()).usage();
        assert!(message.contains(words), "{args:?}: {message}");
    };
    refused(&["--selection", "--attention", "full"], "selects nothing");
    refused(&["edit ab ba"], "a prompt is for --selection");
    refused(&["--raw"], "a prompt is for --selection");
    refused(&["--plot", "x.svg"], "--selection");
    refused(&["--selection", "--prompt-ids", "5", "--chat"], "--chat cannot be used with --prompt-ids");
    let short = lim(&["inspect", "--selection", "edit ab ba", "-n", "4", "--device", "cpu", "-q"]);
    assert_eq!((short.code, short.stdout.as_str()), (1, ""));
    assert!(short.stderr.contains("nothing was selected: the sequence has "), "{}", short.stderr);
}
