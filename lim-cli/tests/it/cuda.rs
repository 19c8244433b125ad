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
