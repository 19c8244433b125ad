//! The command line on a GPU. Without one these tests fail: feature `cuda` asks for it.

use serde_json::Value;

use crate::models::answers_like_hf;
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

#[test]
fn checkpoint_directories_answer_like_hf() {
    for name in ["qwen3-long", "qwen2-default", "llama-llama3-sharded", "mistral-yarn-mscale", "llama-f16"] {
        answers_like_hf(name, "cuda");
    }
}

/// The demo model's answers to sample problems, thousands of greedy tokens: those of the CPU in float32, and as often
/// right in bf16.
#[test]
fn the_demo_model_answers_like_on_the_cpu() {
    let solve = |seed: usize, flags: &[&str]| -> Value {
        let args = ["generate", "--output", "json", "--quiet", "--seed", &seed.to_string()];
        lim(&[&args[..], flags].concat()).json()
    };
    for attention in ["full", "lim", "tidal"] {
        let mut right = 0;
        for seed in 0..6 {
            let flags = |device, dtype| ["--attention", attention, "--device", device, "--dtype", dtype];
            let cpu = solve(seed, &flags("cpu", "f32"));
            let gpu = solve(seed, &flags("cuda", "f32"));
            let ids = |out: &Value| out["samples"][0]["token_ids"].clone();
            assert_eq!(ids(&gpu), ids(&cpu), "{attention}, problem {seed}");
            for key in ["mean_context_tokens", "mean_attended_tokens", "selections"] {
                assert_eq!(gpu["sparsity"][key], cpu["sparsity"][key], "{attention}, problem {seed}, {key}");
            }
            right +=
                usize::from(solve(seed, &flags("cuda", "bf16"))["samples"][0]["check"]["correct"] == true);
        }
        assert!(right >= 5, "{attention}: {right} of 6 in bf16");
    }
}

/// Stop strings end a sample on the host, one step late; what is said must not show it.
#[test]
fn stop_strings_end_a_sample_as_on_the_cpu() {
    let said = |device| {
        let args = [
            "generate",
            "--seed",
            "2",
            "--stop",
            ";",
            "--samples",
            "2",
            "--device",
            device,
            "--dtype",
            "f32",
        ];
        let out = lim(&[&args[..], &["--output", "json", "--quiet"]].concat()).json();
        out["samples"].clone()
    };
    let (cpu, gpu) = (said("cpu"), said("cuda"));
    let fields = |s: &Value| s.as_array().expect("samples").iter().map(fields_of).collect::<Vec<_>>();
    assert_eq!(fields(&gpu), fields(&cpu));
}

fn fields_of(sample: &Value) -> [Value; 3] {
    ["text", "token_ids", "finish_reason"].map(|key| sample[key].clone())
}
