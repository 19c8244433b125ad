//! Tokenizers against HF's ids and texts, and decoding token by token.

use lim_model::{Config, GenerationConfig, ModelDir, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::goldens;

const TOKENIZERS: [&str; 3] = ["byte-level", "byte-level-bos", "metaspace"];

fn tokenizer(name: &str) -> Tokenizer {
    let read = |file: &str| std::fs::read(goldens::path("tokenizers").join(name).join(file)).unwrap();
    let (tokenizer, config) = (read("tokenizer.json"), read("tokenizer_config.json"));
    Tokenizer::from_json(("tokenizer.json", &tokenizer), Some(("tokenizer_config.json", &config))).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut stream = tokenizer.stream(skip_special);
    let mut text = String::new();
    for id in ids {
        text.push_str(&stream.push(*id).unwrap());
    }
    text + &stream.finish().unwrap()
}

#[test]
fn ids_and_texts_equal_hfs() {
    for name in TOKENIZERS {
        let tokenizer = tokenizer(name);
        for case in goldens::json(&format!("tokenizers/{name}/expected.json")).as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text).unwrap(), expected, "{name}: {text:?}");
            assert_eq!(tokenizer.encode_rendered(text).unwrap(), ids(&case["plain_ids"]), "{name}: {text:?}");
            for (skip, key) in [(false, "decoded"), (true, "decoded_plain")] {
                assert_eq!(tokenizer.decode(&expected, skip).unwrap(), case[key], "{name}: {text:?}");
                assert_eq!(streamed(&tokenizer, &expected, skip), case[key], "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn a_character_comes_out_whole() {
    let tokenizer = tokenizer("byte-level");
    let all = tokenizer.encode("a𝄞b").unwrap();
    assert_eq!(all.len(), 6, "the clef is four tokens");
    let mut stream = tokenizer.stream(true);
    let pieces: Vec<String> = all.iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(pieces, ["a", "", "", "", "𝄞", "b"]);
    assert_eq!(stream.finish().unwrap(), "");

    let mut cut = tokenizer.stream(true);
    for id in &all[..3] {
        cut.push(*id).unwrap();
    }
    assert_eq!(cut.finish().unwrap(), "\u{fffd}", "what never completes is shown at the end");
}

#[test]
fn end_tokens_are_a_union() {
    let config = json!({"architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 16,
        "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 10,
        "eos_token_id": [7, 3]});
    let config = Config::from_json("config.json", config.to_string().as_bytes()).unwrap();
    let generation = GenerationConfig { eos: vec![3, 5], ..GenerationConfig::default() };
    let tokenizer = tokenizer("byte-level");
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    assert_eq!(tokenizer.eos(), Some(end));
    assert_eq!(tokenizer.end_tokens(&config, &generation), [3, 5, 7, end]);
}

#[test]
fn broken_files_are_named() {
    let said = |tokenizer: &[u8], config: &[u8]| {
        let config = Some(("tokenizer_config.json", config));
        Tokenizer::from_json(("tokenizer.json", tokenizer), config).unwrap_err().to_string()
    };
    assert!(said(b"{}", b"{}").starts_with("tokenizer.json: not a tokenizer"));
    let good = std::fs::read(goldens::path("tokenizers/metaspace/tokenizer.json")).unwrap();
    assert!(said(&good[..good.len() / 2], b"{}").starts_with("tokenizer.json: not a tokenizer"));
    assert!(said(&good, b"nonsense").starts_with("tokenizer_config.json: not valid JSON"));
    let unknown = said(&good, br#"{"eos_token": "<|nope|>"}"#);
    assert!(unknown.contains("eos_token is \"<|nope|>\", must be a token of the vocabulary"), "{unknown}");
    assert!(ModelDir::open("/nonexistent").unwrap_err().to_string().contains("no config.json"));
}

#[test]
fn padding_and_truncation_of_a_training_run_are_dropped() {
    let mut json = goldens::json("tokenizers/byte-level/tokenizer.json");
    json["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    let text = json.to_string();
    let loaded = Tokenizer::from_json(("tokenizer.json", text.as_bytes()), None).unwrap();
    let expected = tokenizer("byte-level").encode("Hello world 123").unwrap();
    assert!(expected.len() > 2);
    assert_eq!(loaded.encode("Hello world 123").unwrap(), expected);
}

proptest! {
    #[test]
    fn streaming_any_ids_equals_decoding_them(ids in prop::collection::vec(0u32..340, 0..40), skip: bool) {
        // Metaspace's byte fallback decodes runs of bytes as one, so that only whole texts stream alike there.
        for name in ["byte-level", "byte-level-bos"] {
            let tokenizer = tokenizer(name);
            prop_assert_eq!(streamed(&tokenizer, &ids, skip), tokenizer.decode(&ids, skip).unwrap());
        }
    }

    #[test]
    fn encoding_ascii_and_decoding_it_gives_it_back(text in "[ -~]{0,60}") {
        for name in TOKENIZERS {
            let tokenizer = tokenizer(name);
            let ids = tokenizer.encode_rendered(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids, true).unwrap(), text.as_str());
            prop_assert_eq!(streamed(&tokenizer, &ids, true), text.as_str());
        }
    }
}
