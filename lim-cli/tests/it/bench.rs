//! `bench`: rows, interleaved policies and formats. Figures are not judged here.

use crate::run::{keys, lim};

const SMALL: [&str; 13] =
    ["bench", "-p", "16", "-n", "4", "-d", "0,64", "-b", "1,2", "-r", "2", "--token-budget", "32"];

#[test]
fn json_has_a_row_for_every_test_and_policy() {
    let out = lim(&[&SMALL[..], &["--attention", "full,lim", "-o", "json", "--quiet"]].concat()).json();
    assert_eq!(keys(&out), ["model", "device", "dtype", "read_gb_per_s", "attention", "tests"]);
    let tests = out["tests"].as_array().expect("tests");
    let names: Vec<String> =
        tests.iter().map(|t| format!("{} {} {}", t["test"], t["policy"], t["batch"])).collect();
    let expected = [
        r#""pp16" "full" 1"#,
        r#""tg4" "full" 1"#,
        r#""tg4" "lim" 1"#,
        r#""tg4" "full" 2"#,
        r#""tg4" "lim" 2"#,
        r#""pp16 @ d64" "full" 1"#,
        r#""tg4 @ d64" "full" 1"#,
        r#""tg4 @ d64" "lim" 1"#,
        r#""tg4 @ d64" "full" 2"#,
        r#""tg4 @ d64" "lim" 2"#,
    ];
    assert_eq!(names, expected);
    for test in tests {
        assert!(test["tokens_per_s"].as_f64().is_some_and(|v| v > 0.0), "{test}");
        assert_eq!(test["repeats"], 2);
    }
    let attended = |row: usize| tests[row]["attended_tokens"].as_f64().expect("a number");
    assert!(attended(7) < attended(6), "lim reads less than full at depth 64");
    assert!((attended(6) - 68.5).abs() < 1.0, "four steps from 67 cached tokens on: {}", attended(6));
}

#[test]
fn markdown_is_the_default_and_csv_has_a_header() {
    let text = lim(&["bench", "-p", "0", "-n", "2", "-r", "1", "--attention", "full", "--quiet"]).ok();
    assert!(text.starts_with("| test | policy |"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let text =
        lim(&["bench", "-p", "8", "-n", "0", "-r", "1", "--attention", "full", "--quiet", "-o", "csv"]).ok();
    let fields: Vec<usize> = text.lines().map(|l| l.replace(", ", "").matches(',').count()).collect();
    assert_eq!(fields, [17, 17], "{text}");
}

#[test]
fn the_plot_has_a_line_and_a_limit_for_every_policy() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("steps.svg");
    let plot = ["--attention", "full,lim", "--quiet", "--plot", path.to_str().expect("UTF-8")];
    lim(&[&SMALL[..], &plot].concat()).ok();
    let svg = std::fs::read_to_string(&path).expect("a plot");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert_eq!(svg.matches("<g ").count(), 2, "a panel for each batch");
    assert_eq!(svg.matches("<polyline ").count(), 2 * 2 * 2);
    for words in ["time of a decode step (ms)", "cached tokens a sequence", "byte limit", ">full<", ">lim<"] {
        assert!(svg.contains(words), "no {words:?}");
    }
    let nowhere = lim(&["bench", "--plot", "/no/such/folder/x.svg"]);
    assert_eq!((nowhere.code, nowhere.stdout.as_str()), (1, ""));
    assert!(lim(&["bench", "-n", "0", "--plot", "x.svg"]).usage().contains("--plot"));
}
