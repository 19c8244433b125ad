"""Write the model as an ordinary Hugging Face directory, and read its weights back.

python export.py WEIGHTS.safetensors DIR [--budget 128 --layers dense=0-1,select=2,5]
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tasks
from model import Config, Model

NAMES = {  # ours -> Hugging Face's, per layer
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def save_weights(model, path, dtype=torch.bfloat16):
    out = {"model.embed_tokens.weight": model.embed, "model.norm.weight": model.norm}
    for name, hf in NAMES.items():
        for i, w in enumerate(getattr(model, name)):
            out[f"model.layers.{i}.{hf}.weight"] = w
    save_file({k: w.detach().to("cpu", dtype).contiguous() for k, w in out.items()}, path, {"format": "pt"})


def config_of(path):
    """The configuration that the weights were trained with: depth is what varies."""
    with safe_open(path, "pt") as f:
        return Config(layers=sum(name.endswith("input_layernorm.weight") for name in f.keys()))


def load_weights(model, path):
    w = load_file(path)
    with torch.no_grad():
        model.embed.copy_(w["model.embed_tokens.weight"])
        model.norm.copy_(w["model.norm.weight"])
        for name, hf in NAMES.items():
            for i, p in enumerate(getattr(model, name)):
                p.copy_(w[f"model.layers.{i}.{hf}.weight"])
    return model


def config_json(c):
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": tasks.EOS,
        "pad_token_id": tasks.PAD,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "hidden_size": c.hidden,
        "initializer_range": 0.02,
        "intermediate_size": c.ffn,
        "max_position_embeddings": c.positions,
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.kv_heads,
        "rms_norm_eps": c.eps,
        "rope_scaling": None,
        "rope_theta": c.theta,
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": c.vocab,
    }


def tokenizer_json(size):
    vocab = {t: i for i, t in enumerate(tasks.VOCAB)}
    vocab |= {f"<unused{i}>": i for i in range(len(vocab), size)}  # the table is padded to a round size
    special = [
        {
            "id": i,
            "content": t,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, t in enumerate(tasks.SPECIAL)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }


def write_directory(weights, path, c, budget, layers):
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": config_json(c),
        "generation_config.json": {
            "do_sample": False,
            "eos_token_id": tasks.EOS,
            "pad_token_id": tasks.PAD,
            "max_new_tokens": 4096,
        },
        "tokenizer.json": tokenizer_json(c.vocab),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": c.positions,
            "chat_template": "{{ (messages[-1]['content'] | trim) + '\\n' }}",
        },
        "lim.json": {
            "attention": {"policy": "lim", "token_budget": budget, "recent_ratio": 0.25, "sinks": 4, "layers": layers}
        },
    }
    for name, value in files.items():
        (path / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    shutil.copyfile(weights, path / "model.safetensors")


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("weights")
    a.add_argument("directory")
    a.add_argument("--budget", type=int, default=128)
    a.add_argument("--layers", default="dense=0-1,select=2,5")
    a = a.parse_args()
    c = config_of(a.weights)
    load_weights(Model(c), a.weights)  # fails here if the file does not fit the configuration
    write_directory(a.weights, a.directory, c, a.budget, a.layers)
