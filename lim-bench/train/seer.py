"""Distil SeerAttention-R's gates (gates.py) from a frozen model for a given time on one GPU.

    python seer.py ../../lim-cli/assets/lim-demo/model.safetensors --out seer.safetensors --seconds 100

The model runs densely over problems with their right answers. For sampled positions of the answers, the target of a
page is the largest attention weight of its tokens in any query head of the group; the gate's softmax over the pages
before the current one learns their shares by KL divergence, a query counting as much as its attention lies there.
At the end: the attention mass that the chosen pages hold on held-out problems, by layer, beside other choices.
"""

import argparse
import json
import multiprocessing as mp
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

import tasks
from export import config_of, load_weights
from gates import Gates, best_pages, save_gates
from model import Model, after, before, causal, repeat_kv, rope_table

START = time.time()
RANGES = [(200, 640), (600, 1280), (1200, 2048), (1900, 2560)]  # lengths of problems in tokens, drawn alike


def sequence(prompt):
    return tasks.encode(f"{prompt}\n{tasks.answer_text(prompt)}") + bytes([tasks.EOS])


def pack(prompts, t):
    """Token ids [rows, t], and where the answers begin and end."""
    ids, first, end = np.zeros((len(prompts), t), np.uint8), [], []
    for row, prompt in zip(ids, prompts):
        seq = sequence(prompt)[:t]
        row[: len(seq)] = np.frombuffer(seq, np.uint8)
        first.append(len(prompt) + 1)
        end.append(len(seq))
    return ids, np.array(first), np.array(end)


def worker(seed, queue, rows, t):
    rng = random.Random(seed)
    ranges = [(lo, min(hi, t)) for lo, hi in RANGES if lo < t]
    while True:
        prompts = [tasks.sample(rng, rng.choice(tasks.TASKS), *rng.choice(ranges)) for _ in range(rows)]
        queue.put(pack(prompts, t))


@torch.no_grad()
def layers(model, ids, dtype):
    """Rotated q and k [B, heads, T, d] of every layer in turn, of the dense model."""
    c = model.c
    b, t = ids.shape
    cos, sin = (x.repeat(b, 1) for x in rope_table(c, t, ids.device, dtype))
    dims = (c.heads, c.kv_heads, c.head_dim, c.eps)
    x = F.embedding(ids.flatten(), model.embed).to(dtype)
    for i in range(c.layers):
        m = [p[i] for p in (model.norm1, model.q, model.k, model.v, model.q_norm, model.k_norm)]
        q, k, v = (y.view(b, t, -1, c.head_dim).transpose(1, 2) for y in before(x, cos, sin, *m, dims))
        yield q, k
        att = causal(q, repeat_kv(k, c.heads), repeat_kv(v, c.heads)).transpose(1, 2).reshape(b * t, -1)
        m = [p[i] for p in (model.o, model.norm2, model.gate, model.up, model.down)]
        x = after(x, att, *m, c.eps)


def at(x, pos):
    """Rows pos [B, Q] of x [B, heads, T, d]."""
    return x.gather(2, pos[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


@torch.no_grad()
def attention(q, k, pos):
    """Softmax weights [B, kv_heads, group, Q, T] of the queries q [B, heads, Q, d] at pos [B, Q]."""
    b, h, n, d = q.shape
    kv, t = k.shape[1:3]
    s = (q.reshape(b, kv, -1, d).float() @ k.float().mT).view(b, kv, h // kv, n, t) * d**-0.5
    past = torch.arange(t, device=q.device) <= pos[..., None]
    return s.masked_fill_(~past[:, None, None], float("-inf")).softmax(-1)


def page_max(p, page):
    return p.unflatten(-1, (-1, page)).amax(-1)


def loss(gates, i, q, k, pos, cos, sin):
    """Mean over queries of KL(target || gate), weighed by the share of the target that lies before the current page."""
    q = at(q, pos)
    target = page_max(attention(q, k, pos), gates.page).amax(2)  # [B, kv_heads, Q, pages]
    target = target / target.sum(-1, keepdim=True)
    page = torch.arange(target.shape[-1], device=q.device)
    past = (page < (pos // gates.page)[..., None])[:, None]
    target = target * past
    share = target.sum(-1, keepdim=True)
    score = gates.scores(gates.queries(i, q, cos[pos][:, None], sin[pos][:, None]), gates.keys(i, k, cos, sin))
    log = score.masked_fill(~past, -1e9).log_softmax(-1)
    entropy = torch.special.xlogy(target, target / share.clamp_min(1e-30)).sum(-1)
    return (entropy - (target * log).sum(-1)).mean()


@torch.no_grad()
def recall(model, gates, device, dtype, per_task, lo, hi, t, budgets, queries):
    """Attention mass on the chosen pages, mean over heads and positions: {choice: {budget: [by layer]}}."""
    prompts = [p["prompt"] for p in tasks.held_out_set(7, per_task, lo, hi)]
    ids, first, end = (torch.from_numpy(x).to(device).long() for x in pack(prompts, t))
    g = torch.Generator(device).manual_seed(0)
    c, page = model.c, gates.page
    cos, sin = rope_table(c, t, device, torch.float32)
    group = c.heads // c.kv_heads
    out, parts = {}, 0
    for rows in torch.arange(len(ids), device=device).split(8):
        parts += 1
        u = torch.rand(len(rows), queries, generator=g, device=device)
        start = torch.maximum(first[rows], torch.full_like(first[rows], max(budgets)))[:, None]
        pos = start + (u * (end[rows, None] - start)).long()
        current = (pos // page)[:, None].expand(-1, c.kv_heads, -1)
        for i, (q, k) in enumerate(layers(model, ids[rows], dtype)):
            q = at(q, pos)
            p = attention(q, k, pos)
            mass = p.unflatten(-1, (-1, page)).sum(-1)  # [B, kv_heads, group, Q, pages]
            low, high = (f(k.float().unflatten(2, (-1, page)), 3) for f in (torch.amin, torch.amax))
            qs = q.float().unflatten(1, (c.kv_heads, group))
            bound = qs.clamp_min(0) @ high.mT[:, :, None] + qs.clamp_max(0) @ low.mT[:, :, None]
            gate = gates.scores(gates.queries(i, q, cos[pos][:, None], sin[pos][:, None]), gates.keys(i, k, cos, sin))
            order = torch.arange(t // page, device=device).float().expand_as(gate)
            choices = {
                "gate": gate[:, :, None],
                "largest weight": page_max(p, page).amax(2, keepdim=True),
                "quest, per query head": bound,
                "window": order[:, :, None],
            }
            for name, score in choices.items():
                for budget in budgets:
                    keep = best_pages(score, current[:, :, None].expand(score.shape[:-1]), budget // page)
                    row = out.setdefault(name, {}).setdefault(budget, [0.0] * c.layers)
                    row[i] += float((mass * keep).sum(-1).mean())
    return {n: {k: [round(x / parts, 5) for x in row] for k, row in by.items()} for n, by in out.items()}


def main():
    a = argparse.ArgumentParser()
    a.add_argument("weights")
    a.add_argument("--out", required=True)
    a.add_argument("--seconds", type=float, required=True, help="from the first step to the last")
    a.add_argument("--page", type=int, default=16, help="tokens a page")
    a.add_argument("--rows", type=int, default=16)
    a.add_argument("--queries", type=int, default=384, help="positions sampled of a row")
    a.add_argument("--lr", type=float, default=2e-3)
    a.add_argument("--workers", type=int, default=12)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--toy", action="store_true", help="a minute on a CPU, to test the code")
    a.add_argument("--json")
    a = a.parse_args()
    t = 640 if a.toy else 2560
    context = mp.get_context("fork")  # the workers must exist before CUDA does
    queue = context.Queue(32)
    workers = [
        context.Process(target=worker, args=(a.seed * 1000 + i, queue, a.rows, t), daemon=True)
        for i in range(a.workers)
    ]
    for w in workers:
        w.start()
    torch.manual_seed(a.seed)
    device = "cpu" if a.toy else "cuda"
    dtype = torch.float32 if a.toy else torch.bfloat16
    torch.set_float32_matmul_precision("high")
    c = config_of(a.weights)
    model = load_weights(Model(c), a.weights).to(device).requires_grad_(False)
    gates = Gates(c, a.page).to(device)
    adam = torch.optim.AdamW(gates.parameters(), lr=a.lr, betas=(0.9, 0.98), weight_decay=0.0)
    cos, sin = rope_table(c, t, device, torch.float32)
    first = time.time()
    step, sums, count = 0, torch.zeros(c.layers, device=device), 0
    while (p := (time.time() - first) / a.seconds) < 1:
        lr = a.lr * min(1.0, (step + 1) / 50) * max(0.02, 1 - p)
        adam.param_groups[0]["lr"] = lr
        ids, begin, end = (torch.from_numpy(x).to(device).long() for x in queue.get())
        start = torch.maximum(begin, torch.full_like(begin, 2 * a.page))[:, None]
        pos = start + (torch.rand(a.rows, a.queries, device=device) * (end[:, None] - start)).long()
        for i, (q, k) in enumerate(layers(model, ids, dtype)):
            value = loss(gates, i, q, k, pos, cos, sin)
            value.backward()
            sums[i] += value.detach()
        adam.step()
        adam.zero_grad(set_to_none=True)
        step, count = step + 1, count + 1
        if step % 50 == 0 or step <= 2:
            by_layer = " ".join(f"{x:.4f}" for x in (sums / count).tolist())
            print(
                f"{time.time() - START:6.1f} s  step {step} lr {lr:.1e} loss {by_layer} queue {queue.qsize()}",
                flush=True,
            )
            sums.zero_()
            count = 0
    for w in workers:
        w.kill()
    save_gates(gates, a.out)
    print(f"{time.time() - START:6.1f} s  {step} steps, {step * a.rows * t / 1e6:.0f} M tokens", flush=True)
    size = (1, 300, 560, 640, (64, 128), 32) if a.toy else (16, 1200, 2400, 2560, (32, 64, 128, 256), 256)
    found = recall(model, gates, device, dtype, *size)
    for name, by in found.items():
        for budget, row in by.items():
            print(f"  {name} K={budget}: {sum(row) / len(row):.4f}  by layer", *(f"{x:.4f}" for x in row), flush=True)
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"args": vars(a), "steps": step, "recall": found}, f)


if __name__ == "__main__":
    main()
