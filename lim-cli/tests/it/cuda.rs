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

#[test]
fn calibrate_and_selection_find_what_the_cpu_finds() {
    let args = ["--demo", "1", "-n", "160", "--steps", "30", "--token-budget", "32", "--dtype", "f32"];
    let run = |device| {
        let args = [&["calibrate"][..], &args, &["--device", device, "--output", "json", "-q"]].concat();
        lim(&args).json()
    };
    let [cpu, cuda] = ["cpu", "cuda"].map(run);
    assert_eq!(cpu["generated_tokens"], cuda["generated_tokens"]);
    let means = |report: &serde_json::Value| -> Vec<f64> {
        let rows = report["budgets"][0]["mean"].as_array().expect("rows").clone();
        rows.iter()
            .flat_map(|row| row.as_array().expect("a row").clone())
            .filter_map(|v| v.as_f64())
            .collect()
    };
    let (a, b) = (means(&cpu), means(&cuda));
    assert_eq!((a.len(), b.len()), (36, 36));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() < 0.01, "{a} {b}");
    }
    let shown =
        ["inspect", "--selection", "-n", "80", "--token-budget", "32", "--dtype", "f32", "--output", "json"];
    let [cpu, cuda] =
        ["cpu", "cuda"].map(|device| lim(&[&shown[..], &["--device", device, "-q"]].concat()).json());
    assert_eq!(cpu["token_ids"], cuda["token_ids"]);
    assert_eq!(cpu["steps"], cuda["steps"]);
}
