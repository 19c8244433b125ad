//! Text to stdout, everything else to stderr.

use std::io::Read;

use crate::run::{command, lim, lim_with_stdin};

const SHORT: [&str; 6] = ["generate", "edit ab ba", "-n", "8", "--device", "cpu"];

#[test]
fn text_goes_to_stdout_and_the_report_to_stderr() {
    let run = lim(&SHORT);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.ends_with('\n'));
    for subject in ["model ", "attention ", "sampling ", "prompt ", "prefill ", "decode "] {
        assert!(run.stderr.contains(subject), "no {subject:?} in {}", run.stderr);
        assert!(!run.stdout.contains(subject), "{subject:?} in {}", run.stdout);
    }
}

#[test]
fn quiet_says_nothing_but_the_text() {
    let loud = lim(&SHORT).ok();
    let quiet = lim(&[&SHORT[..], &["--quiet"]].concat());
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), (loud.as_str(), ""));
    let refused = lim(&["generate", "x", "--quiet", "--token-budget", "0"]).usage();
    assert!(refused.contains("--token-budget"), "errors are said even so: {refused}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn the_device_that_auto_picked_is_said_with_the_reason() {
    let auto = lim(&["generate", "edit ab ba", "-n", "2"]);
    assert!(auto.stderr.contains("auto picked cpu"), "{}", auto.stderr);
    assert!(auto.stderr.contains("this build has no CUDA"), "{}", auto.stderr);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = command(&["generate", "--seed", "3", "--device", "cpu"]).spawn().expect("starts");
    let mut first = [0; 1];
    child.stdout.take().expect("piped").read_exact(&mut first).expect("some text");
    // Stdout is closed here: the next piece of text cannot be written.
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{stderr}");
}

/// Generates without end, is interrupted at the first text, and ends.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_cleanly_with_the_report() {
    let args = ["generate", "edit ab ba", "--ignore-eos", "-n", "8000", "--device", "cpu"];
    let mut child = command(&args).spawn().expect("starts");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 1]).expect("some text");
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    stdout.read_to_string(&mut String::new()).expect("the rest of the text");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for subject in ["decode ", "ended      interrupted", "error: interrupted"] {
        assert!(stderr.contains(subject), "no {subject:?} in {stderr}");
    }
}

#[test]
fn stdin_is_read_for_a_dash() {
    let args = ["--quiet", "-n", "8", "--device", "cpu"];
    let stdin = lim_with_stdin(&[&["generate", "-"][..], &args].concat(), "edit ab ba\n").ok();
    let prompt = lim(&[&["generate", "edit ab ba"][..], &args].concat()).ok();
    assert_eq!(stdin, prompt);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "edit ab ba\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let file = lim(&[&["generate", "--prompt-file", path][..], &args].concat()).ok();
    assert_eq!(file, prompt);
}

#[test]
fn help_and_version_are_results() {
    for args in [&["--help"][..], &["--version"], &["generate", "--help"], &["bench", "-h"]] {
        let run = lim(args);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
        assert!(run.stdout.contains("lim-cli"), "{}", run.stdout);
    }
}
