"""SeerAttention-R's gates (arXiv 2506.08889): per KV head, which pages of the past a query should read.

For layer and KV head, with the group's query heads and the page's keys before their rotation:

    query gate  rope(Wq . concat(group's queries), the query's position)
    key gate    rope(Wk . concat(max, min, mean over the page's keys), the page's first position)
    score       query gate . key gate / sqrt(head_dim)

The gate is as wide as a head, so it is rotated as the model's heads are.
"""

import math

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from model import rotate

PAGE = 16  # tokens a page: the engine's default, and what gates are made for


class Gates(nn.Module):
    def __init__(self, c, page=PAGE):
        super().__init__()
        self.c, self.page = c, page
        group, d = c.heads // c.kv_heads, c.head_dim
        eye = torch.eye(d).expand(c.layers, c.kv_heads, d, d)
        # Starts as the group's mean query against the page's mean key, and a little noise.
        q = torch.cat([eye / group] * group, -1)
        k = torch.cat([torch.zeros_like(eye), torch.zeros_like(eye), eye], -1)
        self.q = nn.Parameter(q + 0.01 * torch.randn_like(q))  # [layers, kv_heads, d, group * d]
        self.k = nn.Parameter(k + 0.01 * torch.randn_like(k))  # [layers, kv_heads, d, 3 * d]

    def queries(self, layer, q, cos, sin):
        """Rotated q [B, heads, T, d] -> query gates [B, kv_heads, T, d]; cos and sin [..., T, d] of their positions."""
        b, _, t, d = q.shape
        q = rotate(q.float(), cos, -sin).view(b, self.c.kv_heads, -1, t, d).transpose(2, 3).flatten(3)
        return rotate(q @ self.q[layer].mT, cos, sin)

    def keys(self, layer, k, cos, sin):
        """Rotated k [B, kv_heads, T, d] from position 0 on -> key gates of its whole pages, [B, kv_heads, pages, d]."""
        whole = k.shape[2] // self.page * self.page
        k = rotate(k[:, :, :whole].float(), cos[:whole], -sin[:whole]).unflatten(2, (-1, self.page))
        pooled = torch.cat((k.amax(3), k.amin(3), k.mean(3)), -1)
        return rotate(pooled @ self.k[layer].mT, cos[: whole : self.page], sin[: whole : self.page])

    def scores(self, queries, keys):
        return queries @ keys.mT * self.c.head_dim**-0.5


def best_pages(scores, current, count):
    """scores [..., pages], current page of each query -> bool [..., pages]: it, and the count - 1 best before it."""
    page = torch.arange(scores.shape[-1], device=scores.device)
    scores = scores.masked_fill(page >= current[..., None], -math.inf)
    top, at = scores.topk(min(count - 1, scores.shape[-1]), -1)
    keep = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, at, top > -math.inf)
    return keep | (page == current[..., None])


NAMES = {"q": "self_attn.seer.q_proj", "k": "self_attn.seer.k_proj"}


def save_gates(gates, path, dtype=torch.bfloat16):
    out = {}
    for name, key in NAMES.items():
        for i, w in enumerate(getattr(gates, name)):
            out[f"model.layers.{i}.{key}.weight"] = w.detach().flatten(0, 1).to("cpu", dtype).contiguous()
    save_file(out, path, {"format": "pt", "page_size": str(gates.page)})


def load_gates(c, path):
    with safe_open(path, "pt") as f, torch.no_grad():
        gates = Gates(c, int(f.metadata()["page_size"]))
        for name, key in NAMES.items():
            for i, w in enumerate(getattr(gates, name)):
                w.copy_(f.get_tensor(f"model.layers.{i}.{key}.weight").view_as(w))
    return gates
