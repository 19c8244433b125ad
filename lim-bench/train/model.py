"""The demo model in plain PyTorch (the arithmetic of Hugging Face's Qwen3ForCausalLM) and LessIsMore's mask.

Parameters of one kind are stacked over layers: that is what the optimiser wants, and export splits them again.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab: int = 128
    hidden: int = 256
    layers: int = 8
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 768
    theta: float = 1e5
    eps: float = 1e-6
    positions: int = 8192


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c

        def matrix(rows, cols, std=0.02):
            return nn.Parameter(torch.randn(c.layers, rows, cols) * std)

        d, q, kv = c.hidden, c.heads * c.head_dim, c.kv_heads * c.head_dim
        self.embed = nn.Parameter(torch.randn(c.vocab, d) * 0.02)
        self.q, self.k, self.v = matrix(q, d), matrix(kv, d), matrix(kv, d)
        self.gate, self.up = matrix(c.ffn, d), matrix(c.ffn, d)
        small = 0.02 / math.sqrt(2 * c.layers)  # what adds to the residual stream starts small
        self.o, self.down = matrix(d, q, small), matrix(d, c.ffn, small)
        self.norm1, self.norm2 = nn.Parameter(torch.ones(c.layers, d)), nn.Parameter(torch.ones(c.layers, d))
        self.q_norm = nn.Parameter(torch.ones(c.layers, c.head_dim))
        self.k_norm = nn.Parameter(torch.ones(c.layers, c.head_dim))
        self.norm = nn.Parameter(torch.ones(d))


def rms(x, w, eps):
    y = x.float()
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)
    return w.to(x.dtype) * y.to(x.dtype)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def rope_table(c, length, device, dtype):
    inv = c.theta ** (-torch.arange(0, c.head_dim, 2, device=device, dtype=torch.float64) / c.head_dim)
    angle = torch.outer(torch.arange(length, device=device, dtype=torch.float64), inv)
    angle = torch.cat((angle, angle), -1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def before(x, cos, sin, norm1, q, k, v, q_norm, k_norm, dims):
    """x [N, hidden] -> rotated q [N, heads, D], k and v [N, kv_heads, D]."""
    heads, kv, d, eps = dims
    y = F.linear(rms(x, norm1, eps), torch.cat((q, k, v)).to(x.dtype))
    qkv = y.view(-1, heads + 2 * kv, d)
    q, k, v = qkv.split((heads, kv, kv), 1)
    cos, sin = cos[:, None], sin[:, None]
    return rotate(rms(q, q_norm, eps), cos, sin), rotate(rms(k, k_norm, eps), cos, sin), v


def after(x, att, o, norm2, gate, up, down, eps):
    """The rest of the block: att [N, heads * D] -> new x."""
    x = x + F.linear(att, o.to(x.dtype))
    y = F.linear(rms(x, norm2, eps), torch.cat((gate, up)).to(x.dtype))
    g, u = y.chunk(2, -1)
    return x + F.linear(F.silu(g) * u, down.to(x.dtype))


def head_loss(x, norm, embed, target, weight, eps):
    """Sum of weighted cross-entropies, and the number of wrong weighted tokens."""
    logits = F.linear(rms(x, norm, eps), embed.to(x.dtype)).float()
    loss = F.cross_entropy(logits, target, reduction="none")
    wrong = (logits.argmax(-1) != target) & (weight > 0)
    return (loss * weight).sum(), wrong


def repeat_kv(x, heads):
    """[B, kv, T, D] -> [B, heads, T, D]; query head h reads KV head h // group."""
    return x.repeat_interleave(heads // x.shape[1], 1)


def causal(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def window(q, k, v, w, sinks, chunk=64):
    """Causal attention to the last w <= chunk positions (own included) and the first `sinks`, in linear time."""
    b, h, t, d = q.shape
    c = t // chunk
    pos = torch.arange(t, device=q.device).view(c, chunk)

    def with_previous(x):
        x = x.reshape(b, h, c, chunk, d)
        prev = F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1]
        first = x[:, :, :1, :8].expand(b, h, c, 8, d)
        return torch.cat((prev, x, first), 3).transpose(1, 2).reshape(b * c, h, 2 * chunk + 8, d)

    kpos = torch.cat((pos - chunk, pos), 1)
    dist = pos[:, :, None] - kpos[:, None]
    near = (dist >= 0) & (dist < w) & (kpos[:, None] >= 0)
    col = torch.arange(8, device=q.device)
    far = (col < sinks) & (col <= pos[:, :, None] - w)
    mask = torch.cat((near, far), 2)[None, :, None].expand(b, c, 1, chunk, 2 * chunk + 8).reshape(b * c, 1, chunk, -1)
    bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, float("-inf"))
    qc = q.reshape(b, h, c, chunk, d).transpose(1, 2).reshape(b * c, h, chunk, d)
    out = F.scaled_dot_product_attention(qc, with_previous(k), with_previous(v), attn_mask=bias.expand(-1, h, -1, -1))
    return out.view(b, c, h, chunk, d).transpose(1, 2).reshape(b, h, t, d)


@torch.no_grad()
def lim_mask(q, k, prompt, budget, ratio=0.25, sinks=4, depth=None):
    """LessIsMore's set for every position of a training row: bool [B, T, T].

    Each position ranks its own past as it would in decoding. `depth` cuts the per-head lists shorter than M to save
    time; it can only leave the set smaller, when heads agree a great deal.
    """
    b, h, t, d = q.shape
    kv = k.shape[1]
    m = math.floor(budget * (1 - ratio) + 1e-9)
    s = sinks if budget - m >= sinks else 0
    w = budget - m - s
    pos = torch.arange(t, device=q.device)
    n = pos[:, None] + 1
    past = pos[None] < n
    keep = past & ((pos[None] < s) | (pos[None] >= n - w))
    candidate = (pos[None] >= s) & (pos[None] < n - w)
    cut = min(m, depth or m, t)
    scores = q.float().reshape(b, kv, h // kv * t, d) @ k.float().transpose(-1, -2)
    scores = scores.view(b, h, t, t).masked_fill_(~candidate, float("-inf"))
    top, at = scores.topk(cut, -1)
    del scores
    inf = float("inf")
    key = torch.arange(cut, device=q.device) * h + torch.arange(h, device=q.device)[:, None]
    key = torch.where(top == -inf, inf, key[:, None].float())
    key, at = (x.transpose(1, 2).reshape(b, t, h * cut) for x in (key, at))
    best = torch.full((b, t, t), inf, device=q.device).scatter_reduce_(2, at, key, "amin")
    last = best.topk(min(m, t), -1, largest=False, sorted=False)[0].amax(-1, keepdim=True)
    chosen = keep | ((best <= last) & (best < inf))
    dense = (n <= budget) | (pos[:, None] < prompt[:, None, None])
    return torch.where(dense, past, chosen)


def masked(q, k, v, mask):
    bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, float("-inf"))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[:, None].expand(-1, q.shape[1], -1, -1))


def parse_layers(text, layers):
    """DESIGN's grammar, `dense=0-1,select=2,5s` -> one of dense, select, own-sparse, reuse a layer."""
    roles, key = ["reuse"] * layers, None
    for item in text.split(","):
        if "=" in item:
            key, item = item.split("=")
        role = key
        if key == "select" and item.endswith("s"):
            role, item = "own", item[:-1]
        first, _, last = item.partition("-")
        for i in range(int(first), int(last or first) + 1):
            roles[i] = role
    return roles


def run_layers(model, tokens, prompt, rows, roles, budget, near, fns, dtype, depth=None):
    """Hidden states [B * T, hidden]. rows = (lim, windowed): how many rows, from the top, run the reuse layers
    through LessIsMore's set and how many through sinks and a window of `near`; the others run densely."""
    c = model.c
    b, t = tokens.shape
    pre, post = fns
    dims = (c.heads, c.kv_heads, c.head_dim, c.eps)
    cos, sin = rope_table(c, t, tokens.device, dtype)
    cos, sin = cos.repeat(b, 1), sin.repeat(b, 1)
    x = F.embedding(tokens.reshape(-1), model.embed).to(dtype)
    per = [
        p.unbind(0)
        for p in (
            model.norm1,
            model.q,
            model.k,
            model.v,
            model.q_norm,
            model.k_norm,
            model.o,
            model.norm2,
            model.gate,
            model.up,
            model.down,
        )
    ]
    lim, end = rows[0], rows[0] + rows[1]
    mask = None
    for i, role in enumerate(roles):
        norm1, wq, wk, wv, qn, kn, wo, norm2, gate, up, down = (p[i] for p in per)
        q, k, v = (
            y.view(b, t, -1, c.head_dim).transpose(1, 2) for y in pre(x, cos, sin, norm1, wq, wk, wv, qn, kn, dims)
        )
        if lim and role in ("select", "own"):
            parts = zip(q[:lim].split(8), k[:lim].split(8), prompt[:lim].split(8))  # the scores are large
            mask = torch.cat([lim_mask(*part, budget, depth=depth) for part in parts])
        k, v = repeat_kv(k, c.heads), repeat_kv(v, c.heads)
        if role in ("dense", "select") or end == 0:
            att = causal(q, k, v)
        else:
            parts = []
            if lim:
                parts.append(masked(q[:lim], k[:lim], v[:lim], mask))
            if end > lim:
                parts.append(window(q[lim:end], k[lim:end], v[lim:end], near, 4))
            if end < b:
                parts.append(causal(q[end:], k[end:], v[end:]))
            att = torch.cat(parts)
        x = post(x, att.transpose(1, 2).reshape(b * t, -1), wo, norm2, gate, up, down, c.eps)
    return x
