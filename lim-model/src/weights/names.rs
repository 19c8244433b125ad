//! HF's names of the tensors, and the shapes that a config gives them.

use std::collections::BTreeMap;

use crate::Config;

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const HEAD: &str = "lm_head.weight";
pub(super) const NORM: &str = "model.norm.weight";

/// Name of a tensor of block `layer`.
pub(super) fn in_block(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}")
}

/// Names of the gate weights of layer `layer`: queries', keys'.
pub(super) fn gates(layer: usize) -> [String; 2] {
    ["q", "k"].map(|part| in_block(layer, &format!("self_attn.seer.{part}_proj.weight")))
}

/// Every tensor of the model with its shape.
pub(super) fn shapes(config: &Config) -> BTreeMap<String, Vec<usize>> {
    let table = vec![config.vocab, config.hidden];
    let mut shapes =
        BTreeMap::from([(EMBEDDING.to_owned(), table.clone()), (NORM.to_owned(), vec![config.hidden])]);
    if !config.tied_head {
        shapes.insert(HEAD.to_owned(), table);
    }
    let block = block(config);
    for layer in 0..config.layers {
        shapes.extend(block.iter().map(|(part, shape)| (in_block(layer, part), shape.clone())));
    }
    shapes
}

/// Tensors of one block.
fn block(config: &Config) -> Vec<(&'static str, Vec<usize>)> {
    let (hidden, inter, dim) = (config.hidden, config.intermediate, config.heads.dim());
    let (q, kv) = (config.heads.query() * dim, config.heads.kv() * dim);
    let mut parts = vec![
        ("input_layernorm.weight", vec![hidden]),
        ("self_attn.q_proj.weight", vec![q, hidden]),
        ("self_attn.k_proj.weight", vec![kv, hidden]),
        ("self_attn.v_proj.weight", vec![kv, hidden]),
        ("self_attn.o_proj.weight", vec![hidden, q]),
        ("post_attention_layernorm.weight", vec![hidden]),
        ("mlp.gate_proj.weight", vec![inter, hidden]),
        ("mlp.up_proj.weight", vec![inter, hidden]),
        ("mlp.down_proj.weight", vec![hidden, inter]),
    ];
    if config.qkv_bias {
        parts.extend([
            ("self_attn.q_proj.bias", vec![q]),
            ("self_attn.k_proj.bias", vec![kv]),
            ("self_attn.v_proj.bias", vec![kv]),
        ]);
    }
    if config.o_bias {
        parts.push(("self_attn.o_proj.bias", vec![hidden]));
    }
    if config.qk_norm {
        parts.extend([("self_attn.q_norm.weight", vec![dim]), ("self_attn.k_norm.weight", vec![dim])]);
    }
    parts
}
