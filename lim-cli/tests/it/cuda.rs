//! The command line on a GPU. Without one these tests fail: feature `cuda` asks for it.

use crate::run::{command, lim};

#[test]
fn auto_picks_the_gpu_and_says_so() {
    let auto = lim(&["generate", "edit ab ba", "-n", "2"]);
    assert_eq!(auto.code, 0, "{}", auto.stderr);
    assert!(auto.stderr.contains("auto picked cuda:0 ("), "{}", auto.stderr);
}

#[test]
fn auto_without_a_gpu_in_sight_picks_the_cpu_and_says_why() {
    let output = command(&["generate", "edit ab ba", "-n", "2"])
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .expect("lim-cli runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("auto picked cpu") && stderr.contains("; cuda:0: "), "{stderr}");
}

#[test]
fn the_memory_plan_is_said_before_the_answer() {
    let args = ["generate", "edit ab ba", "-n", "2", "--device", "cuda"];
    let run = lim(&args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for words in ["memory ", " free, weights ", "KV cache ", "a context of 8192 tokens fits"] {
        assert!(run.stderr.contains(words), "no {words:?} in {}", run.stderr);
    }
    assert_eq!(lim(&[&args[..], &["--quiet"]].concat()).stderr, "");
}

#[test]
fn a_run_that_cannot_fit_says_what_to_change() {
    let shape = ["bench", "--random-weights", "qwen3-8b", "--device", "cuda", "-p", "0", "-n", "8"];
    let run = lim(&[&shape[..], &["-d", "40000", "-b", "1000"]].concat());
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.stderr);
    for words in ["out of memory on cuda:0 (", " free. Lower --batch, --depth or --n-gen"] {
        assert!(run.stderr.contains(words), "no {words:?} in {}", run.stderr);
    }
}
