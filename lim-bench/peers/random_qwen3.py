"""Writes a random Qwen3-0.6B-shaped checkpoint that lim and its CPU peers can both load.

    python3 lim-bench/peers/random_qwen3.py DIR [--dtype bf16]

Needs torch and safetensors.
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024,
    "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 40960, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0, "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0,
    "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 28,
    "use_cache": True, "bos_token_id": 151643, "eos_token_id": 151645, "initializer_range": 0.02,
}


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("dir", type=pathlib.Path)
    args.add_argument("--dtype", choices=["bf16", "f16", "f32"], default="bf16")
    args = args.parse_args()
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[args.dtype]
    torch.manual_seed(0)
    c = CONFIG
    hidden, inter, dim = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim

    def matrix(out, inp):
        return (torch.randn(out, inp) * inp**-0.5).to(dtype)

    weights = {"model.embed_tokens.weight": matrix(c["vocab_size"], hidden), "model.norm.weight": torch.ones(hidden, dtype=dtype)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        weights[p + "input_layernorm.weight"] = torch.ones(hidden, dtype=dtype)
        weights[p + "post_attention_layernorm.weight"] = torch.ones(hidden, dtype=dtype)
        weights[p + "self_attn.q_norm.weight"] = torch.ones(dim, dtype=dtype)
        weights[p + "self_attn.k_norm.weight"] = torch.ones(dim, dtype=dtype)
        for name, out, inp in [("self_attn.q_proj", q, hidden), ("self_attn.k_proj", kv, hidden), ("self_attn.v_proj", kv, hidden),
                               ("self_attn.o_proj", hidden, q), ("mlp.gate_proj", inter, hidden), ("mlp.up_proj", inter, hidden),
                               ("mlp.down_proj", hidden, inter)]:
            weights[p + name + ".weight"] = matrix(out, inp)
    args.dir.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.dir / "model.safetensors", metadata={"format": "pt"})
    names = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}
    (args.dir / "config.json").write_text(json.dumps(CONFIG | {"torch_dtype": names[dtype]}, indent=1))


if __name__ == "__main__":
    main()
