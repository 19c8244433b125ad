"""Makes the goldens of this folder: tiny random models in HF's format, with what HF transformers computes on them.

    pip install torch transformers && python lim-model/tests/goldens/make.py [NAME ...]

models/NAME/   config.json, weights, and expected.json:
                 prefill   {ids, positions, logits}: logits of those positions after a forward pass over all ids
                 generate  {prompt, new, last_logits}: greedy tokens with a KV cache, and the logits of the last one
sixteen_bits.json  by sixteen_bits.py, to be run anew for a model that is made anew
rope.json      inverse frequencies, cosines and sines of published models' rotary settings

Everything is computed in float32, bf16 and f16 weights included. Made on a CPU with transformers 5.23 and torch 2.7, or
5.17 and 2.11.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    logging,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HERE = Path(__file__).parent
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
SHAPE = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)

# The smallest head that the CUDA kernels know, without an explicit head_dim.
HEADS_OF_32 = dict(hidden_size=64, num_attention_heads=2, num_key_value_heads=1)

# name: (family, config changes, rope, dtype, spelling of transformers 4 or 5, prompt lengths (prefill, generate))
CASES = {
    "qwen3-tied-bf16": ("qwen3", dict(head_dim=16, tie_word_embeddings=True), dict(rope_theta=1e6), "bfloat16", 5, (80, 24)),
    "qwen3-long": ("qwen3", dict(head_dim=32, max_position_embeddings=8192, num_hidden_layers=2), dict(rope_theta=1e4), "bfloat16", 4, (4000, 2000)),
    "qwen3-yarn-bias": ("qwen3", dict(head_dim=32, attention_bias=True), dict(rope_theta=1e4, **YARN), "float32", 4, (80, 24)),
    "qwen2-default": ("qwen2", dict(**HEADS_OF_32), dict(rope_theta=1e4), "float32", 4, (80, 24)),
    "qwen2-tied-dynamic": ("qwen2", dict(**HEADS_OF_32, tie_word_embeddings=True, max_position_embeddings=32), dict(rope_theta=1e4, rope_type="dynamic", factor=4.0), "float32", 5, (80, 24)),
    "llama-llama3-sharded": ("llama", dict(**HEADS_OF_32), dict(rope_theta=5e5, **LLAMA3), "bfloat16", 4, (80, 24)),
    "llama-linear-bias": ("llama", dict(**HEADS_OF_32, attention_bias=True, tie_word_embeddings=True), dict(rope_theta=1e4, rope_type="linear", factor=2.5), "float32", 4, (80, 24)),
    "llama-f16": ("llama", dict(**{**HEADS_OF_32, "num_key_value_heads": 2}), dict(rope_theta=1e4), "float16", 5, (80, 24)),
    "mistral-head-dim": ("mistral", dict(head_dim=12, sliding_window=None, num_key_value_heads=1), dict(rope_theta=1e4), "float32", 4, (80, 24)),
    "mistral-yarn-mscale": ("mistral", dict(**HEADS_OF_32, sliding_window=None), dict(rope_theta=1e4, **YARN, mscale=1.0, mscale_all_dim=0.6, beta_fast=8.0, beta_slow=2.0, truncate=False), "bfloat16", 5, (80, 24)),
    "llama-head-32": ("llama", dict(hidden_size=64, head_dim=32, intermediate_size=96, num_hidden_layers=2, attention_bias=True), dict(rope_theta=5e5, **LLAMA3), "bfloat16", 5, (80, 24)),
    "qwen3-head-64": ("qwen3", dict(hidden_size=64, head_dim=64, intermediate_size=96, num_hidden_layers=2, tie_word_embeddings=True), dict(rope_theta=1e4, **YARN), "bfloat16", 4, (80, 24)),
}
NEW_TOKENS = 60


def token_ids(length):
    """A fixed pseudo-random sequence (Lehmer, 1951) without the special tokens."""
    ids, state = [], 7
    for _ in range(length):
        state = state * 48271 % 0x7FFFFFFF
        ids.append(3 + state % 93)
    return ids


def randomize(model, seed, dtype):
    """Weights large enough that attention is not uniform, norms and biases that are not trivial, rounded to `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("norm.weight"):
            value = 1 + 0.2 * noise
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "q_proj" in name or "k_proj" in name:
            value = noise * 2.0 / p.shape[-1] ** 0.5
        else:
            value = noise / p.shape[-1] ** 0.5
        p.data.copy_(value.to(dtype))


def spelling_of_4(config, rope):
    """The same config.json as transformers 4 writes it."""
    config.pop("rope_parameters")
    rope = dict(rope)
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type", "default")
    # Files before transformers 4.43 call the rope type `type`.
    key = "type" if kind in ("linear", "yarn") else "rope_type"
    config["rope_scaling"] = None if kind == "default" else {key: kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    return config


@torch.no_grad()
def greedy(model, prompt):
    """Greedy tokens, the last one's logits, and the smallest distance between the two best logits."""
    out = model.generate(
        torch.tensor([prompt]),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(out.logits)[:, 0].topk(2).values
    return out.sequences[0, len(prompt) :].tolist(), out.logits[-1][0].tolist(), (best[:, 0] - best[:, 1]).min().item()


@torch.no_grad()
def make_model(name, family, changes, rope, dtype, spelling, lengths):
    config_class, model_class = FAMILIES[family]
    folder = HERE / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    prompt = token_ids(lengths[1])
    for seed in range(100):
        config = config_class(**{**SHAPE, **changes}, rope_parameters=dict(rope), dtype=dtype)
        # Never cast before it has answered: that would round its rotary frequencies too.
        model = model_class(config).float().eval()
        randomize(model, seed, getattr(torch, dtype))
        new, last_logits, margin = greedy(model, prompt)
        # Tokens that differ by less than the tolerance of logits would test luck.
        if margin > 5e-3 and len(set(new)) > 10:
            break
    else:
        raise RuntimeError(f"{name}: no seed with clear greedy tokens")
    model.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    model.save_pretrained(folder, max_shard_size="20KB" if "sharded" in name else "1GB")
    if spelling == 4:
        path = folder / "config.json"
        path.write_text(json.dumps(spelling_of_4(json.loads(path.read_text()), rope), indent=2) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)

    model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    again, last_logits, _ = greedy(model, prompt)
    assert again == new, "a saved model must answer as before"
    ids = token_ids(lengths[0])
    positions = sorted({0, 1, 15, 31, 32, 33, 63, lengths[0] // 2, lengths[0] - 1})
    logits = model_class.from_pretrained(folder, dtype=torch.float32).eval()(torch.tensor([ids])).logits[0]
    expected = {
        "prefill": {"ids": ids, "positions": positions, "logits": logits[positions].tolist()},
        "generate": {"prompt": prompt, "new": new, "last_logits": last_logits},
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    print(f"{name}: seed {seed}, margin {margin:.3f}, logits up to {logits.abs().max():.1f}, {len(set(new))} distinct")


# name: (config of the rotary embedding, sequence length, positions)
ROPES = {
    "qwen3-8b": (dict(head_dim=128, max_position_embeddings=40960, rope_parameters=dict(rope_type="default", rope_theta=1e6)), None, [0, 1, 777, 8191, 40000]),
    "qwen3-8b-yarn": (dict(head_dim=128, max_position_embeddings=131072, rope_parameters=dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=32768)), None, [0, 5, 8191, 40000]),
    "yarn-attention-factor": (dict(head_dim=64, max_position_embeddings=4096, rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=40.0, original_max_position_embeddings=4096, attention_factor=0.75)), None, [0, 5, 4000]),
    "yarn-null-factor": (dict(head_dim=64, max_position_embeddings=163840, rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=None, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=0.8)), None, [0, 5, 4000]),
    "llama-3.1-8b": (dict(head_dim=128, max_position_embeddings=131072, rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)), None, [0, 5, 8191, 40000]),
    "llama-3.2-1b": (dict(head_dim=64, max_position_embeddings=131072, rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)), None, [0, 5, 8191]),
    "linear": (dict(head_dim=128, max_position_embeddings=4096, rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=3.0)), None, [0, 5, 4000]),
    "dynamic-short": (dict(head_dim=128, max_position_embeddings=2048, rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)), 1000, [0, 999]),
    "dynamic-long": (dict(head_dim=128, max_position_embeddings=2048, rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)), 5000, [0, 5, 4999]),
}


def make_rope():
    cases = []
    for name, (changes, length, positions) in ROPES.items():
        config = LlamaConfig(**{**SHAPE, **json.loads(json.dumps(changes))})
        kind = config.rope_parameters["rope_type"]
        if kind == "default":
            from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

            inv_freq, scale = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
        else:
            length_tensor = None if length is None else torch.tensor(length)
            inv_freq, scale = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length_tensor)
        angles = torch.tensor(positions).float()[:, None] * inv_freq[None]
        cases.append(
            {
                "name": name,
                "config": {"architectures": ["LlamaForCausalLM"], **SHAPE, **changes},
                "length": length,
                "positions": positions,
                "cos": (angles.cos() * scale).tolist(),
                "sin": (angles.sin() * scale).tolist(),
            }
        )
    (HERE / "rope.json").write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name in sys.argv[1:] or CASES:
        make_model(name, *CASES[name])
    if not sys.argv[1:]:
        make_rope()
