"""Greedy answers to held-out problems under full attention, LessIsMore or SeerAttention's gates, many problems at a time.

    python evaluate.py WEIGHTS.safetensors --policy lim --budget 256 --layers dense=0-1,select=2,5
    python evaluate.py WEIGHTS.safetensors --policy seer --gates seer.safetensors --budget 128 --layers select=0s,1s,...

Decoding is exact: float32 on bf16-rounded weights, the prompt dense, the set chosen anew at every step from the raw
scores (or the gate's) of the new token, ties to the lower position. `--ratio 1` is sinks and a window. `--problems FILE`
takes JSON lines instead of drawing a set.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch

import tasks
from export import config_of, load_weights
from gates import best_pages, load_gates
from model import Model, parse_layers, rms, rope_table, rotate


def chosen(scores, n, budget, ratio, sinks):
    """LessIsMore's rule: scores [B, heads, N] float32, n [B] -> bool [B, N]."""
    b, h, size = scores.shape
    m = math.floor(budget * (1 - ratio) + 1e-9)
    s = sinks if budget - m >= sinks else 0
    w = budget - m - s
    pos = torch.arange(size, device=scores.device)
    past = pos < n[:, None]
    if size <= budget:
        return past
    keep = past & ((pos < s) | (pos >= n[:, None] - w))
    if m == 0:  # ratio 1: sinks and a window
        return torch.where(n[:, None] <= budget, past, keep)
    candidate = (pos >= s) & (pos < n[:, None] - w)
    bits = (scores + 0.0).view(torch.int32).long()  # + 0.0 turns -0 into 0
    bits = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # order of the integers = order of the floats
    order = bits * 65536 + (65535 - pos)  # equal scores: the lower position first
    order = order.masked_fill(~candidate[:, None], torch.iinfo(torch.int64).min)
    at = order.topk(m, -1)[1]
    real = candidate[:, None].expand(b, h, size).gather(2, at)
    key = torch.arange(m, device=scores.device) * h + torch.arange(h, device=scores.device)[:, None]
    key = torch.where(real, key.float(), math.inf)
    best = torch.full((b, size), math.inf, device=scores.device)
    best.scatter_reduce_(1, at.reshape(b, -1), key.reshape(b, -1), "amin")
    last = best.topk(m, -1, largest=False, sorted=False)[0].amax(-1, keepdim=True)
    return torch.where(n[:, None] <= budget, past, keep | ((best <= last) & (best < math.inf)))


class Lim:
    """LessIsMore's set of a layer: q [B, heads, D], keys [B, kv, N, D], n [B] -> bool [B, 1, N]."""

    def __init__(self, budget, ratio, sinks):
        self.rule = (budget, ratio, sinks)

    def __call__(self, layer, q, keys, n):
        raw = (q.unflatten(1, (keys.shape[1], -1)) @ keys.transpose(2, 3)).flatten(1, 2)
        return chosen(raw.float(), n, *self.rule)[:, None]


class Seer:
    """The pages that a layer's gates choose: as Lim, but -> bool [B, heads, N]."""

    def __init__(self, gates, budget, length):
        self.gates, self.budget = gates, budget
        self.cos, self.sin = rope_table(gates.c, length, gates.q.device, torch.float32)

    def __call__(self, layer, q, keys, n):
        g, kv, size = self.gates, keys.shape[1], keys.shape[2]
        past = (torch.arange(size, device=q.device) < n[:, None])[:, None]
        if size <= self.budget:
            return past
        cos, sin = self.cos[n - 1, None, None], self.sin[n - 1, None, None]
        scores = g.scores(g.queries(layer, q[:, :, None], cos, sin), g.keys(layer, keys, self.cos, self.sin))[:, :, 0]
        pages = -(-size // g.page)  # the last page may be partly filled: it has no gate, and is kept
        scores = torch.nn.functional.pad(scores, (0, pages - scores.shape[-1]))
        current = ((n - 1) // g.page)[:, None].expand(-1, kv)
        keep = best_pages(scores, current, max(1, self.budget // g.page)).repeat_interleave(g.page, -1)[..., :size]
        keep = torch.where((n <= self.budget)[:, None, None], past, keep & past)
        return keep.repeat_interleave(q.shape[1] // kv, 1)


def attend(q, k, v, mask):
    """One query a sequence: q [B, heads, D], caches [B, kv, N, D], mask [B, heads or 1, N]."""
    b, h, d = q.shape
    kv = k.shape[1]
    scores = (q.view(b, kv, h // kv, d) @ k.transpose(2, 3)).view(b, h, -1)
    p = (scores * d**-0.5).masked_fill(~mask, -math.inf).softmax(-1)
    return (p.view(b, kv, h // kv, -1) @ v).reshape(b, h * d)


class At:
    """Attention of one decoding step: the new token of every sequence stands at position n[sequence]."""

    def __init__(self, cache, n, longest, roles, rule):
        self.cache, self.n, self.longest, self.roles, self.rule = cache, n, longest, roles, rule
        self.rows = torch.arange(len(n), device=n.device)
        self.valid = (torch.arange(longest, device=n.device) < n[:, None] + 1)[:, None]
        self.chosen = None  # the set in force: made by a select layer, read by the reuse layers after it

    def __call__(self, i, q, k, v):
        cache, role = self.cache[i], self.roles[i]
        cache[0, self.rows, :, self.n], cache[1, self.rows, :, self.n] = k, v
        keys, values = cache[0, :, :, : self.longest], cache[1, :, :, : self.longest]
        if role in ("select", "own"):
            self.chosen = self.rule(i, q, keys, self.n + 1)
        return attend(q, keys, values, self.valid if role in ("dense", "select") else self.chosen)


class Decoder:
    def __init__(self, model, roles, rule):
        self.m, self.c, self.roles, self.rule = model, model.c, roles, rule

    def block(self, i, x, cos, sin, attention):
        m, c = self.m, self.c
        y = rms(x, m.norm1[i], c.eps)
        q, k, v = ((y @ w[i].T).unflatten(-1, (-1, c.head_dim)) for w in (m.q, m.k, m.v))
        q, k = rotate(rms(q, m.q_norm[i], c.eps), cos, sin), rotate(rms(k, m.k_norm[i], c.eps), cos, sin)
        x = x + attention(i, q, k, v) @ m.o[i].T
        y = rms(x, m.norm2[i], c.eps)
        return x + (torch.nn.functional.silu(y @ m.gate[i].T) * (y @ m.up[i].T)) @ m.down[i].T

    def logits(self, x):
        return rms(x, self.m.norm, self.c.eps) @ self.m.embed.T

    @torch.no_grad()
    def run(self, prompts, limit):
        """Token lists for a list of prompt token lists."""
        m, c = self.m, self.c
        device = m.embed.device
        dtype = m.embed.dtype
        b, p = len(prompts), max(map(len, prompts))
        size = p + limit
        ids = torch.tensor([list(x) + [0] * (p - len(x)) for x in prompts], device=device)
        n = torch.tensor([len(x) for x in prompts], device=device)
        cos, sin = rope_table(c, size + 1, device, dtype)
        cache = [torch.zeros(2, b, c.kv_heads, size, c.head_dim, device=device, dtype=dtype) for _ in range(c.layers)]

        def prefill(i, q, k, v):
            q, k, v = (y.transpose(1, 2) for y in (q, k, v))
            cache[i][0, :, :, :p], cache[i][1, :, :, :p] = k, v
            k, v = (y.repeat_interleave(c.heads // c.kv_heads, 1) for y in (k, v))
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return out.transpose(1, 2).flatten(2)

        x = m.embed[ids]
        for i in range(c.layers):
            x = self.block(i, x, cos[:p, None], sin[:p, None], prefill)
        token = self.logits(x[torch.arange(b, device=device), n - 1]).argmax(-1)
        out = [[] for _ in range(b)]
        live = torch.arange(b, device=device)  # which problem each row of the caches is
        history = [(live, token)]
        done = token == tasks.EOS
        for step in range(limit - 1):
            if step % 64 == 63 and done.any():  # drop the finished ones
                keep = ~done
                if not keep.any():
                    break
                live, token, n, done = live[keep], token[keep], n[keep], done[keep]
                cache = [kv[:, keep] for kv in cache]
            at = At(cache, n, min(size, p + step + 1), self.roles, self.rule)
            x = m.embed[token]
            for i in range(c.layers):
                x = self.block(i, x, cos[n, None], sin[n, None], at)
            n = n + 1
            token = self.logits(x).argmax(-1)
            history.append((live, token))
            done |= token == tasks.EOS
        for rows, tokens in history:
            for r, t in zip(rows.tolist(), tokens.tolist()):
                if not out[r] or out[r][-1] != tasks.EOS:
                    out[r].append(t)
        return out


def score(problems, outputs):
    """Right answers by task; an answer is right if the text after the last `=` is, and the model ended by itself."""
    report, wrong = {}, []
    for p, ids in zip(problems, outputs):
        r = report.setdefault(p["task"], {"problems": 0, "right": 0, "tokens": 0})
        text = tasks.decode(ids)
        right = ids[-1] == tasks.EOS and text.rsplit("=", 1)[-1].strip() == p["answer"]
        r["problems"] += 1
        r["right"] += right
        r["tokens"] += len(ids)
        if not right:
            want = tasks.answer_text(p["prompt"])
            at = next((i for i, (x, y) in enumerate(zip(text, want)) if x != y), min(len(text), len(want)))
            wrong.append(
                f"{p['prompt'][:70]} @{at}/{len(want)}: {want[max(0, at - 20) : at]!r} "
                f"wrote {text[at : at + 6]!r} for {want[at : at + 6]!r}"
            )
    for r in report.values():
        r["tokens"] = round(r["tokens"] / r["problems"])
    return report, wrong


def main():
    a = argparse.ArgumentParser()
    a.add_argument("weights")
    a.add_argument("--policy", choices=("full", "lim", "seer"), default="full")
    a.add_argument("--gates", help="of policy seer")
    a.add_argument("--budget", type=int, default=128)
    a.add_argument("--ratio", type=float, default=0.25)
    a.add_argument("--sinks", type=int, default=4)
    a.add_argument("--layers", default="dense=0-1,select=2,5")
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--per-task", type=int, default=100)
    a.add_argument("--lo", type=int, default=1200)
    a.add_argument("--hi", type=int, default=2400)
    a.add_argument("--problems")
    a.add_argument("--dtype", default="float32")
    a.add_argument("--json")
    a = a.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    c = config_of(a.weights)
    model = load_weights(Model(c), a.weights).to(device, getattr(torch, a.dtype))
    roles = ["dense"] * c.layers if a.policy == "full" else parse_layers(a.layers, c.layers)
    problems = (
        [json.loads(x) for x in Path(a.problems).read_text().splitlines()]
        if a.problems
        else list(tasks.held_out_set(a.seed, a.per_task, a.lo, a.hi))
    )
    prompts = [tasks.encode(p["prompt"] + "\n") for p in problems]
    rule = Lim(a.budget, a.ratio, a.sinks)
    if a.policy == "seer":
        gates = load_gates(c, a.gates).to(device).requires_grad_(False)
        rule = Seer(gates, a.budget, max(map(len, prompts)) + a.hi + 100)
    start = time.time()
    outputs = Decoder(model, roles, rule).run(prompts, a.hi + 100)
    report, wrong = score(problems, outputs)
    settings = {"lim": f" K={a.budget} r={a.ratio} {a.layers}", "seer": f" K={a.budget} {a.layers}"}
    name = a.policy + settings.get(a.policy, "")
    print(
        f"{name} {a.dtype} seed {a.seed}, {time.time() - start:.0f} s:",
        ", ".join(f"{t} {r['right']}/{r['problems']} ({r['tokens']} tokens)" for t, r in report.items()),
        flush=True,
    )
    for line in wrong[:12]:
        print("   ", line)
    if a.json:
        result = {"policy": name, "dtype": a.dtype, "seed": a.seed, "tasks": report, "wrong": wrong}
        Path(a.json).write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
