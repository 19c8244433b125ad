//! Checkpoints: golden ones load, damaged ones are refused with words that name the damage.

use std::fs;
use std::path::Path;

use lim_kernels::DType;
use lim_model::{Checkpoint, Config, Error, Weights};

use crate::goldens;

fn config(model: &str) -> Config {
    let path = goldens::path("models").join(model).join("config.json");
    Config::from_json("config.json", &fs::read(path).unwrap()).unwrap()
}

fn open(model: &str, convert: Option<DType>) -> Weights {
    let checkpoint = Checkpoint::open(&goldens::path("models").join(model)).unwrap();
    checkpoint.weights(&config(model), convert).unwrap()
}

/// A copy of a golden model's folder that a test may damage.
fn copy(model: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(goldens::path("models").join(model)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn load(dir: &Path) -> Result<Weights, Error> {
    let file = dir.join("config.json").display().to_string();
    let config = Config::from_json(&file, &fs::read(dir.join("config.json")).unwrap())?;
    Checkpoint::open(dir)?.weights(&config, None)
}

fn refusal(dir: &Path) -> String {
    load(dir).expect_err("a damaged checkpoint must be refused").to_string()
}

#[test]
fn a_device_that_converts_gets_weights_as_stored() {
    let (plain, converted) = (open("qwen3-tied-bf16", None), open("qwen3-tied-bf16", Some(DType::F32)));
    let [plain, converted, stored] =
        [&plain, &converted, &converted.as_stored()].map(|weights| weights.embedding().unwrap());
    assert_eq!((converted.dtype, stored.dtype), (DType::F32, DType::BF16));
    assert_eq!(stored.bytes.as_slice(), plain.bytes.as_slice());
}

#[test]
fn golden_models_load_whole() {
    for model in goldens::MODELS {
        let (config, weights) = (config(model), open(model, None));
        assert_eq!(weights.unused(), Vec::<String>::new(), "{model}");
        assert_eq!(weights.embedding().unwrap().shape, [config.vocab, config.hidden]);
        assert_eq!(weights.embedding().unwrap().dtype, config.dtype.unwrap(), "{model}");
        assert_eq!(weights.head().unwrap().is_none(), config.tied_head, "{model}");
        let width = config.heads.query() * config.heads.dim();
        for layer in 0..config.layers {
            let layer = weights.layer(layer).unwrap();
            assert_eq!(layer.attention.o.0.shape, [config.hidden, width]);
            assert_eq!(layer.attention.q.1.is_some(), config.qkv_bias);
            assert_eq!(layer.attention.o.1.is_some(), config.o_bias);
            assert_eq!(layer.attention.qk_norm.is_some(), config.qk_norm);
        }
        assert!(weights.layer(config.layers).is_err());
    }
}

#[test]
fn conversion_rounds_to_the_type_asked_for() {
    let (stored, wide) = (open("qwen3-tied-bf16", None), open("qwen3-tied-bf16", Some(DType::F32)));
    let (stored, wide) = (stored.norm().unwrap(), wide.norm().unwrap());
    assert_eq!((stored.dtype, wide.dtype), (DType::BF16, DType::F32));
    let bits = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    let widened: Vec<u8> = (stored.bytes.as_slice().chunks(2))
        .flat_map(|b| f32::from_bits(u32::from(bits(b)) << 16).to_le_bytes())
        .collect();
    assert_eq!(wide.bytes.as_slice(), widened);

    let back = open("llama-f16", Some(DType::BF16)).embedding().unwrap();
    assert_eq!(back.dtype, DType::BF16);
    let half = open("llama-f16", None).embedding().unwrap();
    let pairs = half.bytes.as_slice().chunks(2).zip(back.bytes.as_slice().chunks(2));
    for (h, b) in pairs {
        let exact = half::f16::from_bits(bits(h)).to_f32();
        assert_eq!(bits(b), half::bf16::from_f32(exact).to_bits());
    }
    let f16 = Checkpoint::open(&goldens::path("models/llama-f16")).unwrap();
    assert!(f16.weights(&config("llama-f16"), Some(DType::F16)).is_err());
}

#[test]
fn embedded_bytes_load_like_the_file_even_unaligned() {
    let file = fs::read(goldens::path("models/qwen2-default/model.safetensors")).unwrap();
    let mapped = open("qwen2-default", None);
    for shift in 0..4 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(&file);
        let bytes: &'static [u8] = &Box::leak(shifted.into_boxed_slice())[shift..];
        let embedded = Checkpoint::from_bytes("demo", bytes).unwrap();
        let embedded = embedded.weights(&config("qwen2-default"), None).unwrap();
        let (a, b) = (embedded.layer(1).unwrap().down.0, mapped.layer(1).unwrap().down.0);
        assert_eq!(a.bytes.as_slice(), b.bytes.as_slice());
        assert!(a.bytes.as_slice().as_ptr().addr().is_multiple_of(4));
    }
}

#[test]
fn damage_is_named() {
    let dir = copy("qwen2-default");
    let file = dir.path().join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    for keep in [0, 5, 100, whole.len() - 1] {
        fs::write(&file, &whole[..keep]).unwrap();
        let said = refusal(dir.path());
        assert!(said.contains("model.safetensors: not a whole safetensors file"), "{said}");
        assert!(said.contains(&format!("{keep} bytes")), "{said}");
    }
    fs::remove_file(&file).unwrap();
    let said = refusal(dir.path());
    assert!(said.contains("no model.safetensors or model.safetensors.index.json"), "{said}");
}

#[test]
fn a_config_that_does_not_fit_names_the_tensor() {
    let dir = copy("qwen2-default");
    let edit = |key: &str, value: serde_json::Value| {
        let path = dir.path().join("config.json");
        let mut json = goldens::json("models/qwen2-default/config.json");
        json[key] = value;
        fs::write(path, json.to_string()).unwrap();
        refusal(dir.path())
    };
    let said = edit("intermediate_size", 50.into());
    assert!(
        said.contains("mlp.down_proj.weight has shape [64, 48], the config calls for [64, 50]"),
        "{said}"
    );
    let said = edit("num_hidden_layers", 4.into());
    assert!(said.contains("model.layers.3.") && said.contains("is missing from"), "{said}");
    let said = edit("architectures", serde_json::json!(["Qwen3ForCausalLM"]));
    assert!(said.contains("model.layers.0.self_attn.k_norm.weight is missing"), "{said}");
}

#[test]
fn an_index_that_lies_is_refused() {
    let dir = copy("llama-llama3-sharded");
    let path = dir.path().join("model.safetensors.index.json");
    let index = goldens::json("models/llama-llama3-sharded/model.safetensors.index.json");
    let with = |shard: &str| {
        let mut index = index.clone();
        index["weight_map"]["model.norm.weight"] = shard.into();
        fs::write(&path, index.to_string()).unwrap();
        refusal(dir.path())
    };
    for outside in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""] {
        let said = with(outside);
        assert!(said.contains("model.norm.weight") && said.contains("not a plain file name"), "{said}");
    }
    let said = with("model-00009-of-00009.safetensors");
    assert!(said.contains("model-00009-of-00009.safetensors"), "{said}");
    let truth = index["weight_map"]["model.norm.weight"].as_str().unwrap();
    let other = index["weight_map"].as_object().unwrap().values().find(|s| *s != truth).unwrap();
    let said = with(other.as_str().unwrap());
    assert!(said.contains("tensor model.norm.weight is missing from"), "{said}");
    fs::write(&path, "{}").unwrap();
    assert!(refusal(dir.path()).contains("no object weight_map"));
}

#[test]
fn random_weights_repeat_and_keep_variance() {
    let config = config("qwen3-yarn-bias");
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let make = |seed| Checkpoint::random(dtype, seed).weights(&config, Some(DType::F32));
        let layer = |seed| make(seed).unwrap().layer(2).unwrap();
        let bytes = |seed| layer(seed).gate.0.bytes.as_slice().to_vec();
        if dtype == DType::F32 {
            assert_eq!(bytes(1), bytes(1));
            assert_ne!(bytes(1), bytes(2));
        }
        let values: Vec<f32> =
            bytes(1).chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let variance = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        assert!((variance * config.hidden as f32 - 1.0).abs() < 0.1, "{dtype}: {variance}");
        let norm = layer(1).attention_norm;
        assert!(norm.bytes.as_slice().chunks(4).all(|b| b == 1f32.to_le_bytes()));
    }
}
