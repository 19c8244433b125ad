"""Train the demo model for a given time on one GPU.

    python train.py --out DIR --seconds 470

Rows are single problems. In every step half of the rows run their reuse layers densely; the others through sinks and
a short window and, after 30% of the time, two in five of them through LessIsMore's own set. So one set of weights
works under all of these. Weights are saved as they are shipped (bf16), every two minutes and at the end.
"""

import argparse
import json
import multiprocessing as mp
import os
import random
import time

import numpy as np
import torch

import tasks
from export import save_weights
from model import Config, Model, after, before, head_loss, parse_layers, run_layers

START = time.time()
LAYERS = "dense=0-1,select=2,5"
# T: the range of problem lengths in tokens; T * rows is the same for all, so everything but attention compiles once
BUCKETS = {256: (8, 256), 640: (200, 640), 1280: (600, 1280), 2048: (1200, 2048), 2560: (1900, 2560)}
# up to this share of the time: how often each bucket is drawn
CURRICULUM = [
    (0.08, (100, 0, 0, 0, 0)),
    (0.2, (35, 65, 0, 0, 0)),
    (0.38, (15, 30, 55, 0, 0)),
    (0.55, (8, 15, 30, 27, 20)),
    (1.01, (6, 9, 20, 30, 35)),
]


def batch(rng, progress, tokens, shortest):
    weights = next(w for until, w in CURRICULUM if progress < until)
    t = shortest or rng.choices(list(BUCKETS), weights)[0]
    lo, hi = BUCKETS[t] if not shortest else (8, t)
    rows = tokens // t
    ids = np.zeros((rows, t + 1), np.uint8)
    prompt, length = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    for i in range(rows):
        while True:
            text = tasks.sample(rng, rng.choices(tasks.TASKS, (64, 12, 24))[0], lo, hi)
            seq = tasks.encode(f"{text}\n{tasks.answer_text(text)}") + bytes([tasks.EOS])
            if len(seq) <= t + 1:
                break
        ids[i, : len(seq)] = np.frombuffer(seq, np.uint8)
        prompt[i], length[i] = len(text) + 1, len(seq)
    return ids, prompt, length


def worker(seed, progress, queue, tokens, shortest):
    rng = random.Random(seed)
    while True:
        queue.put(batch(rng, progress.value, tokens, shortest))


def targets(ids, prompt, length):
    """Inputs, targets, and weight 1 where the target is the model's to write."""
    pos = torch.arange(ids.shape[1] - 1, device=ids.device)
    weight = (pos >= prompt[:, None] - 1) & (pos < length[:, None] - 1)
    return ids[:, :-1], ids[:, 1:], weight


def orthogonal(g):
    """Five Newton-Schulz steps towards the nearest orthogonal matrix (Muon's quintic), batched over layers."""
    x = g.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x.mT @ x  # callers pass tall matrices
        x = 3.4445 * x + x @ (-4.7750 * a + 2.0315 * a @ a)
    return x


class Muon:
    """Momentum, orthogonalised, scaled to the size of an AdamW step; for the matrices of the blocks."""

    def __init__(self, params, momentum=0.95, decay=0.05):
        self.params, self.momentum, self.decay = params, momentum, decay
        self.state = [torch.zeros_like(p) for p in params]
        self.groups = {}
        for i, p in enumerate(params):
            self.groups.setdefault(tuple(sorted(p.shape[1:])), []).append(i)

    @torch.no_grad()
    def step(self, lr):
        grads = [p.grad for p in self.params]
        torch._foreach_lerp_(self.state, grads, 1 - self.momentum)
        ahead = torch._foreach_lerp(grads, self.state, self.momentum)
        torch._foreach_mul_(self.params, 1 - lr * self.decay)
        for group in self.groups.values():
            tall = torch.cat([ahead[i] if ahead[i].shape[1] >= ahead[i].shape[2] else ahead[i].mT for i in group])
            update = orthogonal(tall) * (0.2 * max(tall.shape[1:]) ** 0.5)
            for i, u in zip(group, update.split([self.params[i].shape[0] for i in group])):
                self.params[i].add_(u.mT if u.shape[1:] != self.params[i].shape[1:] else u, alpha=-lr)


class Probe:
    """Held-out problems read with the right answer in view: which would be answered without a slip."""

    def __init__(self, device, per_task, lo, hi, t):
        problems = list(tasks.held_out_set(99, per_task, lo, hi))
        self.task = np.array([p["task"] for p in problems])
        ids = np.zeros((len(problems), t + 1), np.uint8)
        prompt, length = [], []
        for i, p in enumerate(problems):
            seq = tasks.encode(f"{p['prompt']}\n{tasks.answer_text(p['prompt'])}") + bytes([tasks.EOS])
            ids[i, : len(seq)] = np.frombuffer(seq, np.uint8)
            prompt.append(len(p["prompt"]) + 1)
            length.append(len(seq))
        self.data = [
            torch.from_numpy(ids).to(device).long(),
            torch.tensor(prompt, device=device),
            torch.tensor(length, device=device),
        ]

    @torch.no_grad()
    def __call__(self, model, budget, layers, dtype, show=0):
        ids, target, weight = targets(*self.data)
        slips = []
        for rows in torch.arange(len(ids), device=ids.device).split(16):
            x = run_layers(
                model,
                ids[rows],
                self.data[1][rows],
                (len(rows) if budget else 0, 0),
                parse_layers(layers, model.c.layers),
                budget,
                0,
                (before, after),
                dtype,
            )
            wrong = head_loss(
                x, model.norm, model.embed, target[rows].reshape(-1), weight[rows].reshape(-1), model.c.eps
            )[1]
            slips.append(wrong.view(len(rows), -1))
        slips = torch.cat(slips)
        clean = (slips.sum(1) == 0).cpu().numpy()
        out = " ".join(f"{t} {clean[self.task == t].sum()}/{(self.task == t).sum()}" for t in tasks.TASKS)
        for i in np.flatnonzero(~clean)[:show]:
            at = int(slips[i].nonzero()[0])
            seq = ids[i].tolist()
            print(
                f"      {tasks.decode(seq[:40])[:40]!r} slip at {at}: {tasks.decode(seq[max(0, at - 19) : at + 1])!r}"
                f" -> {tasks.decode([int(target[i, at])])!r}"
            )
        return f"{out} ({int(slips.sum())} slips)"


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--out", required=True)
    a.add_argument("--seconds", type=float, required=True, help="from the start of the process to the last step")
    a.add_argument("--depth", type=int, default=8, help="layers of the model")
    a.add_argument("--roles", default=LAYERS, help="dense and select layers of rows through LessIsMore's set")
    a.add_argument("--tokens", type=int, default=81920)
    a.add_argument("--lr", type=float, default=3e-3)
    a.add_argument("--lim", type=float, default=0.2, help="share of rows through LessIsMore's set, later on")
    a.add_argument("--window", type=float, default=0.3, help="share of rows through sinks and a window")
    a.add_argument("--workers", type=int, default=12)
    a.add_argument("--probe-every", type=float, default=60)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--toy", action="store_true", help="a minute on a CPU, to test the code")
    a = a.parse_args()
    os.makedirs(a.out, exist_ok=True)

    def say(*words):
        line = f"{time.time() - START:6.1f} s  " + " ".join(map(str, words))
        print(line, flush=True)
        with open(f"{a.out}/train.log", "a") as log:
            print(line, file=log)

    context = mp.get_context("fork")  # the workers must exist before CUDA does
    progress, queue = context.Value("d", 0.0), context.Queue(32)
    workers = [
        context.Process(target=worker, args=(a.seed * 1000 + i, progress, queue, a.tokens, 256 * a.toy), daemon=True)
        for i in range(a.workers)
    ]
    for w in workers:
        w.start()
    torch.manual_seed(a.seed)
    device = "cpu" if a.toy else "cuda"
    dtype = torch.bfloat16
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)
    c = Config(hidden=64, layers=8, heads=4, kv_heads=2, head_dim=32, ffn=128) if a.toy else Config(layers=a.depth)
    model = Model(c)
    model.to(device)
    matrices = [getattr(model, n) for n in ("q", "k", "v", "o", "gate", "up", "down")]
    others = [p for n, p in model.named_parameters() if p.dim() < 3]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=a.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=not a.toy)
    fns = (before, after, head_loss)
    if not a.toy:
        fns = [torch.compile(f, dynamic=False) for f in fns]
    roles = parse_layers(a.roles, c.layers)
    probe = Probe(device, 1, 60, 200, 512) if a.toy else Probe(device, 32, 1200, 2400, 2560)
    rng = random.Random(a.seed)
    first, probed, saved, step, seen, total, count = None, time.time(), time.time(), 0, 0, 0.0, 0
    mark = (0, time.time())
    say(f"{sum(p.numel() for p in model.parameters())} parameters, {vars(a)}")
    while True:
        now = time.time()
        if first is not None:
            p = (now - first) / (START + a.seconds - first)
            if p >= 1:
                break
            progress.value = p
        else:
            p = 0.0
        warm = min(1.0, (step + 1) / 150)
        lr = a.lr * warm * (1.0 if p < 0.5 else max(0.02, 1 - (p - 0.5) / 0.5))
        ids, prompt, length = queue.get()
        if device == "cuda":
            ids, prompt, length = (
                torch.from_numpy(x).pin_memory().to(device, non_blocking=True).long() for x in (ids, prompt, length)
            )
        else:
            ids, prompt, length = (torch.from_numpy(x).long() for x in (ids, prompt, length))
        x, y, weight = targets(ids, prompt, length)
        b, t = x.shape
        lim = int(b * a.lim) if p > 0.3 or a.toy else 0
        windowed = int(b * (a.window + a.lim)) - lim
        budget = rng.choice([k for k in (32, 64, 96, 128, 192, 256, 256) if k < 0.5 * t and k * 40 > t])
        hidden = run_layers(model, x, prompt, (lim, windowed), roles, budget, rng.randint(12, 60), fns[:2], dtype, 96)
        loss, wrong = fns[2](hidden, model.norm, model.embed, y.reshape(-1), weight.reshape(-1).float(), c.eps)
        (loss / weight.sum()).backward()
        muon.step(lr)
        adam.param_groups[0]["lr"] = lr
        adam.step()
        model.zero_grad(set_to_none=True)
        step += 1
        seen += b * t
        total, count = total + wrong.sum().detach(), count + weight.sum()
        if step % 10 == 0 and device == "cuda":
            torch.cuda.synchronize()  # so that the clock above is the device's
        if first is None:
            if device == "cuda":
                torch.cuda.synchronize()
            first = time.time()
        if step % 100 == 0 or step <= 2:
            say(
                f"step {step} p {p:.3f} T {t} lr {lr:.2e} loss {float(loss.detach() / weight.sum()):.5f} "
                f"wrong {float(total / count):.2e} {(seen - mark[0]) / (time.time() - mark[1]) / 1e6:.2f} Mtok/s "
                f"queue {queue.qsize()}"
            )
            total, count, mark = 0.0, 0, (seen, time.time())
        if time.time() - probed > a.probe_every:
            show = 2 if p > 0.5 else 0
            say("  probe full", probe(model, 0, a.roles, dtype, show))
            if p > 0.25:
                for k in (256, 128):
                    say(f"  probe lim {k}", probe(model, k, a.roles, dtype, show if k == 256 else 0))
            probed = time.time()
            mark = (seen, probed)
        if time.time() - saved > 120:
            save_weights(model, f"{a.out}/model.safetensors")
            saved = time.time()
    save_weights(model, f"{a.out}/model.safetensors")
    say(f"{step} steps, {seen / 1e6:.0f} M tokens")
    say("  probe full", probe(model, 0, a.roles, dtype, 4))
    say("  probe lim 256", probe(model, 256, a.roles, dtype, 4))
    with open(f"{a.out}/train.json", "w") as f:
        json.dump({"args": vars(a), "steps": step, "tokens": seen, "seconds": time.time() - first}, f)
    for w in workers:
        w.kill()


if __name__ == "__main__":
    main()
