//! The tiny models in `tests/goldens`, and what HF transformers computes on them.

use std::path::PathBuf;

use serde_json::Value;

/// Names of the golden models.
pub(crate) const MODELS: [&str; 12] = [
    "llama-f16",
    "llama-head-32",
    "llama-linear-bias",
    "llama-llama3-sharded",
    "mistral-head-dim",
    "mistral-yarn-mscale",
    "qwen2-default",
    "qwen2-tied-dynamic",
    "qwen3-head-64",
    "qwen3-long",
    "qwen3-tied-bf16",
    "qwen3-yarn-bias",
];

/// A path under `tests/goldens`: beside these sources or, for an executable that was carried to another machine, in the
/// checkout that it is run from.
pub(crate) fn path(name: &str) -> PathBuf {
    let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let crate_dir = if sources.is_dir() { sources } else { PathBuf::from("lim-model") };
    crate_dir.join("tests/goldens").join(name)
}

/// A JSON file under `tests/goldens`.
pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

/// A list of numbers.
pub(crate) fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// The largest distance of two lists; NaN where either holds one, so that a comparison with it fails.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |worst, (x, y)| {
        let d = (x - y).abs();
        if d.is_nan() || d > worst { d } else { worst }
    })
}

#[test]
fn the_list_names_every_model() {
    let mut found: Vec<String> = std::fs::read_dir(path("models"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, MODELS);
}
