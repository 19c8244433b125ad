//! config.json: both spellings, every refusal, and no panic on whatever it holds.

use lim_kernels::DType;
use lim_model::{Config, Family, RopeKind};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::goldens;

fn base() -> Value {
    json!({"architectures": ["Qwen2ForCausalLM"], "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "rope_theta": 1e6, "bos_token_id": null, "eos_token_id": [2, 5], "hidden_act": "silu"})
}

fn with(changes: Value) -> Value {
    let mut config = base();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

fn read(json: &Value) -> Result<Config, String> {
    Config::from_json("config.json", json.to_string().as_bytes()).map_err(|e| e.to_string())
}

#[test]
fn both_spellings_read_alike() {
    let rope = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    let mut new = rope.clone();
    new["rope_theta"] = 1e6.into();
    let four = read(&with(json!({"rope_scaling": rope, "torch_dtype": "bfloat16"}))).unwrap();
    let five = with(json!({"rope_parameters": new, "dtype": "bfloat16", "rope_theta": null}));
    assert_eq!(four, read(&five).unwrap());
    assert_eq!(four.dtype, Some(DType::BF16));
    assert!(matches!(four.rope.kind, RopeKind::Yarn { factor: 4.0, original_max_positions: 64, .. }));
    assert_eq!((four.rope.theta, four.eos.clone(), four.bos), (1e6, vec![2, 5], None));
}

#[test]
fn families_differ_by_fields() {
    let of = |model: &str| {
        let json = goldens::json(&format!("models/{model}/config.json"));
        let c = read(&json).unwrap();
        (c.family, c.qk_norm, c.qkv_bias, c.o_bias, c.tied_head, c.heads.dim())
    };
    assert_eq!(of("qwen3-tied-bf16"), (Family::Qwen3, true, false, false, true, 16));
    assert_eq!(of("qwen3-yarn-bias"), (Family::Qwen3, true, true, true, false, 32));
    assert_eq!(of("qwen2-default"), (Family::Qwen2, false, true, false, false, 32));
    assert_eq!(of("llama-linear-bias"), (Family::Llama, false, true, true, true, 32));
    assert_eq!(of("mistral-head-dim"), (Family::Mistral, false, false, false, false, 12));
}

#[test]
fn presets_have_their_published_size() {
    let billions = |name: &str| Config::preset(name).unwrap().parameters() as f64 / 1e9;
    for (name, expected) in [
        ("qwen3-0.6b", 0.596),
        ("qwen3-4b", 4.022),
        ("qwen3-8b", 8.191),
        ("llama-3.1-8b", 8.030),
        ("r1-distill-qwen-7b", 7.616),
    ] {
        assert!((billions(name) - expected).abs() < 1e-3, "{name}: {}", billions(name));
    }
    let said = Config::preset("gpt-2").unwrap_err().to_string();
    assert!(said.contains("gpt-2") && said.contains("qwen3-8b"), "{said}");
}

#[test]
fn what_is_not_supported_is_named() {
    let cases = [
        (json!({"architectures": ["MixtralForCausalLM"]}), "architecture `MixtralForCausalLM`"),
        (json!({"architectures": null}), "architectures is null"),
        (json!({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}), "rope type `longrope`"),
        (json!({"rope_scaling": {"type": "mrope"}}), "rope type `mrope`"),
        (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor is missing"),
        (json!({"rope_parameters": {"rope_type": "linear", "factor": -1}}), "rope_parameters.factor is -1"),
        (json!({"rope_scaling": {"type": "yarn", "factor": "4"}}), "rope_scaling.factor is \"4\""),
        (json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}), "full_attention"),
        (json!({"rope_theta": 0}), "rope_theta is 0"),
        (json!({"hidden_act": "gelu"}), "hidden_act `\"gelu\"`"),
        (json!({"mlp_bias": true}), "mlp_bias `true`"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor `0.5`"),
        (json!({"quantization_config": {"bits": 4}}), "quantization_config"),
        (json!({"torch_dtype": "float8_e4m3fn"}), "torch_dtype `float8_e4m3fn`"),
        (
            json!({"use_sliding_window": true, "sliding_window": 64, "max_window_layers": 2}),
            "sliding_window `64`",
        ),
        (json!({"num_key_value_heads": 3}), "3 kv heads"),
        (json!({"num_attention_heads": 0}), "num_attention_heads is 0"),
        (json!({"num_attention_heads": 5}), "hidden_size is 32, must be a multiple of the 5"),
        (json!({"head_dim": 7}), "head_dim is 7"),
        (json!({"hidden_size": 1e30}), "hidden_size is 1e+30"),
        (json!({"vocab_size": -5}), "vocab_size is -5"),
        (json!({"num_hidden_layers": 2.5}), "num_hidden_layers is 2.5"),
        (json!({"eos_token_id": [1, -1]}), "eos_token_id is [1,-1]"),
        (json!({"rms_norm_eps": "tiny"}), "rms_norm_eps is \"tiny\""),
    ];
    for (change, expected) in cases {
        let said = read(&with(change.clone())).expect_err(&change.to_string());
        assert!(said.starts_with("config.json: ") && said.contains(expected), "{change}: {said}");
    }
}

#[test]
fn a_window_counts_only_where_it_cuts() {
    let qwen = |used: bool, window: Value, from: usize| {
        read(&with(json!({"use_sliding_window": used, "sliding_window": window, "max_window_layers": from})))
    };
    assert!(qwen(false, json!(16), 0).is_ok());
    assert!(qwen(true, Value::Null, 0).is_ok());
    assert!(qwen(true, json!(16), 3).is_ok(), "no layer lies at or above max_window_layers");
    assert!(qwen(true, json!(256), 0).is_ok(), "the window is as long as the context");
    assert!(qwen(true, json!(16), 2).is_err());
    let mistral = |change: Value| {
        let mut config = with(change);
        config["architectures"] = json!(["MistralForCausalLM"]);
        config["max_position_embeddings"] = 32_768.into();
        read(&config)
    };
    assert!(mistral(json!({"sliding_window": null})).is_ok());
    assert!(mistral(json!({"sliding_window": 32_768})).is_ok());
    assert!(mistral(json!({"sliding_window": 4096})).unwrap_err().contains("`4096`"));
    assert!(mistral(json!({})).unwrap_err().contains("default"), "HF's default is a window of 4096");
}

/// Values that break parsers.
fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|x| json!(x)),
        (0u64..300).prop_map(Value::from),
        "[a-z0-9]{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!([1, "a", null])),
        Just(json!({"rope_type": "yarn", "factor": 1e300, "original_max_position_embeddings": 1})),
        Just(
            json!({"rope_type": "llama3", "factor": 1e-300, "low_freq_factor": 1e-300, "high_freq_factor": 1e300})
        ),
        Just(json!({"type": "dynamic", "factor": 1e308})),
    ]
}

proptest! {
    #[test]
    fn any_change_is_read_or_refused(changes in prop::collection::vec((0usize..24, odd_value()), 1..4)) {
        let keys = ["architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "rope_theta",
            "rope_scaling", "rope_parameters", "bos_token_id", "eos_token_id", "hidden_act", "torch_dtype", "dtype",
            "rms_norm_eps", "sliding_window", "use_sliding_window", "max_window_layers", "layer_types",
            "attention_bias", "tie_word_embeddings"];
        let mut config = base();
        for (key, value) in changes {
            config[keys[key]] = value;
        }
        if let Ok(config) = read(&config) {
            prop_assert!(config.parameters() > 0);
            if config.heads.dim() <= 256 {
                let table = lim_model::Rope::new(&config).table(3);
                prop_assert_eq!(table.cos.len(), 3 * table.half);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = Config::from_json("config.json", text.as_bytes());
    }

    #[test]
    fn any_safetensors_bytes_are_read_or_refused(
        header in "[ -~]{0,120}", length in prop_oneof![any::<u64>(), 0u64..200], data in 0usize..64,
    ) {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        let bytes: &'static [u8] = Box::leak(bytes.into_boxed_slice());
        let _ = lim_model::Checkpoint::from_bytes("fuzz", bytes);
    }

    #[test]
    fn any_safetensors_header_is_read_or_refused(
        shape in prop::collection::vec(prop_oneof![0u64..5, any::<u64>()], 0..4),
        start in prop_oneof![0u64..9, any::<u64>()], end in prop_oneof![0u64..64, any::<u64>()], data in 0usize..64,
    ) {
        let header = json!({"model.norm.weight": {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}});
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        let bytes: &'static [u8] = Box::leak(bytes.into_boxed_slice());
        if let Ok(checkpoint) = lim_model::Checkpoint::from_bytes("fuzz", bytes) {
            let config = read(&base()).unwrap();
            prop_assert!(checkpoint.weights(&config, None).is_err());
        }
    }
}
