//! Shapes of well-known models, as their published config.json files give them.

use super::Config;
use crate::{Error, Result};

const PRESETS: &[(&str, &str)] = &[
    (
        "qwen3-0.6b",
        r#"{"architectures":["Qwen3ForCausalLM"],"vocab_size":151936,"hidden_size":1024,"intermediate_size":3072,
        "num_hidden_layers":28,"num_attention_heads":16,"num_key_value_heads":8,"head_dim":128,"rms_norm_eps":1e-6,
        "rope_theta":1000000,"max_position_embeddings":40960,"tie_word_embeddings":true,"torch_dtype":"bfloat16",
        "bos_token_id":151643,"eos_token_id":151645}"#,
    ),
    (
        "qwen3-4b",
        r#"{"architectures":["Qwen3ForCausalLM"],"vocab_size":151936,"hidden_size":2560,"intermediate_size":9728,
        "num_hidden_layers":36,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":128,"rms_norm_eps":1e-6,
        "rope_theta":1000000,"max_position_embeddings":40960,"tie_word_embeddings":true,"torch_dtype":"bfloat16",
        "bos_token_id":151643,"eos_token_id":151645}"#,
    ),
    (
        "qwen3-8b",
        r#"{"architectures":["Qwen3ForCausalLM"],"vocab_size":151936,"hidden_size":4096,"intermediate_size":12288,
        "num_hidden_layers":36,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":128,"rms_norm_eps":1e-6,
        "rope_theta":1000000,"max_position_embeddings":40960,"tie_word_embeddings":false,"torch_dtype":"bfloat16",
        "bos_token_id":151643,"eos_token_id":151645}"#,
    ),
    (
        "llama-3.1-8b",
        r#"{"architectures":["LlamaForCausalLM"],"vocab_size":128256,"hidden_size":4096,"intermediate_size":14336,
        "num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"rms_norm_eps":1e-5,
        "rope_theta":500000,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
        "high_freq_factor":4.0,"original_max_position_embeddings":8192},"max_position_embeddings":131072,
        "tie_word_embeddings":false,"torch_dtype":"bfloat16","bos_token_id":128000,
        "eos_token_id":[128001,128008,128009]}"#,
    ),
    (
        "r1-distill-qwen-7b",
        r#"{"architectures":["Qwen2ForCausalLM"],"vocab_size":152064,"hidden_size":3584,"intermediate_size":18944,
        "num_hidden_layers":28,"num_attention_heads":28,"num_key_value_heads":4,"rms_norm_eps":1e-6,
        "rope_theta":10000,"max_position_embeddings":131072,"tie_word_embeddings":false,"torch_dtype":"bfloat16",
        "bos_token_id":151643,"eos_token_id":151643}"#,
    ),
];

pub(super) fn preset(name: &str) -> Result<Config> {
    match PRESETS.iter().find(|(preset, _)| *preset == name) {
        Some((name, json)) => Config::from_json(name, json.as_bytes()),
        None => Err(Error::Unsupported {
            file: "presets".into(),
            what: "model shape".into(),
            found: name.into(),
            supported: PRESETS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        }),
    }
}
