//! Bad usage: exit code 2, nothing on stdout, and a message that says what to do instead.

use crate::run::lim;

#[track_caller]
fn refused(args: &[&str], words: &[&str]) {
    let text = lim(args).usage();
    for word in words {
        assert!(text.contains(word), "{args:?}: no {word:?} in {text}");
    }
}

#[test]
fn settings_that_a_policy_would_ignore() {
    refused(
        &["generate", "x", "--attention", "full", "--token-budget", "64"],
        &["--token-budget does not go with --attention full", "every token", "--attention lim"],
    );
    refused(
        &["generate", "x", "--attention", "streaming", "--recent-ratio", "0.5"],
        &["--recent-ratio does not go with --attention streaming", "leave out --recent-ratio"],
    );
    refused(
        &["generate", "x", "--attention", "quest", "--sinks", "4"],
        &["--sinks does not go with --attention quest"],
    );
    refused(
        &["generate", "x", "--attention", "delta", "--sinks", "4"],
        &["--sinks does not go with --attention delta"],
    );
    refused(
        &["generate", "x", "--attention", "kascade", "--top-mass", "0.9"],
        &["--top-mass does not go with --attention kascade", "--attention topp"],
    );
    refused(
        &["bench", "--attention", "lim,omnikv", "--top-mass", "0.9"],
        &["--top-mass does not go with --attention"],
    );
    refused(
        &["bench", "--attention", "full,streaming", "--recent-ratio", "0.5"],
        &["--recent-ratio does not go with --attention"],
    );
}

#[test]
fn settings_out_of_range() {
    refused(&["generate", "x", "--token-budget", "0"], &["--token-budget is 0, must be"]);
    refused(&["generate", "x", "--recent-ratio", "1.5"], &["--recent-ratio is 1.5, must be from 0 to 1"]);
    refused(
        &["generate", "x", "--attention", "quest", "--token-budget", "8"],
        &["at least one page, 16 tokens"],
    );
    refused(
        &["generate", "x", "--attention", "topp", "--top-mass", "1.5"],
        &["--top-mass is 1.5, must be above 0 and at most 1"],
    );
    refused(&["generate", "x", "--temperature=-1"], &["--temperature is -1, must be 0 or more"]);
    refused(&["generate", "x", "--top-p", "0"], &["--top-p is 0, must be"]);
    refused(&["generate", "x", "--min-p", "2"], &["--min-p is 2, must be"]);
    refused(&["generate", "x", "--repetition-penalty", "0"], &["--repetition-penalty is 0, must be"]);
    refused(&["generate", "x", "--page-size", "24"], &["power of two"]);
    refused(&["generate", "x", "--threads", "0"], &["--threads"]);
    refused(&["generate", "x", "--threads", "5000"], &["--threads 5000", "1 to 1024"]);
    refused(&["generate", "x", "--samples", "0"], &["--samples"]);
    refused(&["generate", "x", "-n", "0"], &["--max-new-tokens"]);
    refused(&["generate", "x", "-n", "1000000"], &["--max-new-tokens 1000000 does not fit", "at most"]);
    refused(&["generate", "x", "--stop", ""], &["stop string"]);
    refused(&["generate", "--prompt-ids", "1,999999"], &["999999", "vocabulary"]);
}

#[test]
fn the_wrong_part_of_layers_is_underlined() {
    refused(
        &["generate", "x", "--layers", "dense=0,reuse=1"],
        &["unknown key", "\n  dense=0,reuse=1\n          ^^^^^\n", "--layers dense=0-1,select=2,12"],
    );
    refused(&["inspect", "--layers", "select=5-3"], &["runs backwards", "\n         ^^^\n"]);
    refused(&["inspect", "--layers", "select=900"], &["--layers:", "900"]);
    refused(&["inspect", "--layers", ""], &["--layers:"]);
}

#[test]
fn devices_and_models_that_are_not_there() {
    refused(&["generate", "x", "--device", "tpu"], &["auto, cpu, cuda or cuda:N"]);
    refused(&["generate", "x", "--device", "cuda:x"], &["cuda:N"]);
    refused(&["bench", "--random-weights", "gpt-5"], &["gpt-5", "qwen3-0.6b", "r1-distill-qwen-7b"]);
    refused(&["bench", "--random-weights", "qwen3-8b", "--model", "x"], &["cannot be used with"]);
    let missing = lim(&["generate", "x", "--model", "/no/such/model"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""));
    assert!(missing.stderr.contains("/no/such/model"), "{}", missing.stderr);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_how_to_get_it() {
    let words = ["this build has no CUDA", "--device cpu", "--features cuda", "scripts/cuda-toolkit.sh"];
    refused(&["generate", "x", "--device", "cuda"], &words);
    refused(&["score", "--prompt-ids", "5,6", "--device", "cuda:1"], &words);
    refused(&["bench", "--device", "cuda"], &words);
}

#[test]
fn prompts_exclude_each_other() {
    refused(&["generate", "x", "--prompt-ids", "1"], &["cannot be used with"]);
    refused(&["generate", "x", "--prompt-file", "f"], &["cannot be used with"]);
    refused(&["generate", "x", "--chat", "--raw"], &["cannot be used with"]);
    refused(&["generate", "--prompt-ids", "1", "--chat"], &["cannot be used with"]);
    refused(&["generate", "x", "--raw", "--system", "y"], &["cannot be used with"]);
    refused(&["generate", ""], &["empty"]);
    refused(&["score"], &["PROMPT", "--prompt-file", "--prompt-ids"]);
    refused(&["score", "--prompt-ids", "5"], &["at least 2"]);
    refused(&["score", "--prompt-ids", "5,6", "--prefill", "3"], &["--prefill 3 is not from 1 to"]);
}

#[test]
fn what_the_demo_model_cannot_do() {
    refused(&["generate", "x", "--thinking-budget", "8"], &["--thinking-budget", "</think>"]);
}

#[test]
fn bench_without_a_test() {
    refused(&["bench", "-p", "0", "-n", "0"], &["nothing to measure"]);
    refused(&["bench", "--attention", "lim,lim"], &["lim twice"]);
    refused(&["bench", "-d", "10000000"], &["positions", "lower --depth"]);
}

#[test]
fn commands_that_do_not_exist() {
    refused(&[], &["Usage"]);
    refused(&["evaluating"], &["unrecognized subcommand"]);
    refused(&["generate", "--attention", "lime"], &["'lim'"]);
}
