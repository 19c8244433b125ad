"""Peers on one NVIDIA GPU, on the shapes of `lim-bench`'s GPU runner: FlashInfer, torch and cuBLAS.

    python3 lim-bench/peers/peers.py OUT.json [--no-flashinfer]

Needs torch; FlashInfer also needs nvcc and ninja, since it compiles its kernels on first use. Every figure is the
median of CUDA-graph replays. A graph holds one call per copy of the data, and the copies together exceed 512 MB, so
that nothing is read from the L2 cache. Selections are the exception: their scores come from the kernel before, so both
sides read them warm.
"""

import argparse
import json
import statistics
import subprocess

import torch

COLD_BYTES = 512 << 20
HEADS, KV_HEADS, DIM = 32, 8, 128
TOKEN_BYTES = 2 * KV_HEADS * DIM * 2  # K and V of one token in bf16
DENSE = [(1, 4096), (1, 32768), (1, 131072), (8, 32768), (32, 32768)]
GATHER = [(1, 2048), (8, 2048), (32, 2048)]
SELECT = [32768, 131072]
# Qwen3-8B: fused qkv, o, fused gate and up, down; 36 layers, and the head.
LINEAR = [(6144, 4096), (4096, 4096), (24576, 4096), (4096, 12288)]
LAYERS, VOCAB = 36, 151936


def graph_us(calls, replays=15):
    """Median microseconds of one call; `calls` are captured one after the other."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for i in range(replays + 3):
        start, end = torch.cuda.Event(True), torch.cuda.Event(True)
        graph.replay()  # keeps the device busy until the start event, as in our own runner
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        if i >= 3:
            times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times) / len(calls)


def eager_us(call, repeats=20):
    times = []
    for i in range(repeats + 3):
        start, end = torch.cuda.Event(True), torch.cuda.Event(True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        if i >= 3:
            times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times)


def copies(bytes_per_call):
    return max(2, -(-COLD_BYTES // bytes_per_call))


def bandwidth(rows):
    x = torch.randn(1 << 30, device="cuda")
    y = torch.empty_like(x)
    us = eager_us(lambda: x.sum())
    rows.append({"op": "read", "peer": "torch sum", "us": us, "gb_per_s": x.numel() * 4 / us / 1e3})
    us = eager_us(lambda: y.copy_(x))
    rows.append({"op": "copy", "peer": "torch copy", "us": us, "gb_per_s": 2 * x.numel() * 4 / us / 1e3})


def sdpa(rows):
    for batch, n in DENSE:
        count = copies(batch * n * TOKEN_BYTES)
        q = torch.randn(batch, HEADS, 1, DIM, device="cuda", dtype=torch.bfloat16)
        kv = [torch.randn(2, batch, KV_HEADS, n, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(count)]
        attend = torch.nn.functional.scaled_dot_product_attention
        us = graph_us([lambda t=t: attend(q, t[0], t[1], enable_gqa=True) for t in kv])
        rows.append({"op": "dense", "peer": "torch sdpa (contiguous)", "batch": batch, "n": n, "us": us})
        del kv
        torch.cuda.empty_cache()


def flashinfer_decode(rows):
    import flashinfer

    def measure(op, batch, n, page, pool_tokens, tensor_cores):
        per_call = batch * n * TOKEN_BYTES
        count = copies(per_call)
        pages = n // page
        pool = max(pool_tokens, batch * n * count) // page
        kv = torch.empty(pool, 2, page, KV_HEADS, DIM, device="cuda", dtype=torch.bfloat16)
        for part in kv.split(1 << 16):
            part.normal_()
        order = torch.randperm(pool, device="cuda").int()
        q = torch.randn(batch, HEADS, DIM, device="cuda", dtype=torch.bfloat16)
        indptr = torch.arange(0, batch + 1, device="cuda", dtype=torch.int32) * pages
        last = torch.full((batch,), page, device="cuda", dtype=torch.int32)
        calls, keep = [], []
        for c in range(count):
            space = torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
            wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(space, "NHD", use_tensor_cores=tensor_cores)
            used = order[c * batch * pages : (c + 1) * batch * pages]
            if op == "gather":  # a selection is ascending within each sequence
                used = used.view(batch, pages).sort(-1).values.flatten().contiguous()
            wrapper.plan(indptr, used, last, HEADS, KV_HEADS, DIM, page,
                         q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
            keep.append((space, used))
            calls.append(lambda w=wrapper: w.run(q, kv))
        us = graph_us(calls)
        name = f"flashinfer {flashinfer.__version__} page {page}" + (" tensor cores" if tensor_cores else "")
        rows.append({"op": op, "peer": name, "batch": batch, "n": n, "us": us})
        del kv, keep, calls
        torch.cuda.empty_cache()

    for tensor_cores in (False, True):
        for batch, n in DENSE:
            measure("dense", batch, n, 16, 0, tensor_cores)
        for batch, k in GATHER:
            measure("gather", batch, k, 1, 32768 * batch, tensor_cores)


def selection(rows):
    for n in SELECT:
        scores = torch.randn(HEADS, n, device="cuda")
        us = graph_us([lambda: torch.topk(scores, 1536, dim=-1)] * 4)
        ids = torch.topk(scores, 1536, dim=-1)[1]
        unique = eager_us(lambda: torch.unique(ids.flatten()))
        rows.append({"op": "select", "peer": "torch topk + unique (host sync)", "n": n, "us": us + unique,
                     "topk_us": us, "unique_us": unique})


def linear(rows):
    layers = [[torch.randn(o, i, device="cuda", dtype=torch.bfloat16) * 0.02 for o, i in LINEAR] for _ in range(LAYERS)]
    head = torch.randn(VOCAB, LINEAR[0][1], device="cuda", dtype=torch.bfloat16) * 0.02
    weights = [w for layer in layers for w in layer] + [head]
    total = sum(w.numel() * 2 for w in weights)
    for m in (1, 8, 16):
        x = {i: torch.randn(m, i, device="cuda", dtype=torch.bfloat16) for _, i in LINEAR}

        def step():
            for w in weights:
                torch.nn.functional.linear(x[w.shape[1]], w)

        us = graph_us([step])
        rows.append({"op": "weights", "peer": "cuBLAS", "batch": m, "us": us, "gb_per_s": total / us / 1e3})


def prefill(rows):
    """One layer of Qwen3-8B over a whole prompt: the four products, causal attention, SwiGLU; times the layers."""
    for n in (8192, 65536):
        w = [torch.randn(o, i, device="cuda", dtype=torch.bfloat16) * 0.02 for o, i in LINEAR]
        x = torch.randn(n, LINEAR[0][1], device="cuda", dtype=torch.bfloat16)

        def layer():
            q, k, v = torch.nn.functional.linear(x, w[0]).split([HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM], -1)
            q, k, v = (t.view(1, n, -1, DIM).transpose(1, 2) for t in (q, k, v))
            a = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            y = torch.nn.functional.linear(a.transpose(1, 2).reshape(n, -1), w[1])
            gate, up = torch.nn.functional.linear(y, w[2]).chunk(2, -1)
            torch.nn.functional.linear(torch.nn.functional.silu(gate) * up, w[3])

        us = eager_us(layer, repeats=5) * LAYERS
        rows.append({"op": "prefill", "peer": "torch sdpa + cuBLAS", "n": n, "us": us, "tokens_per_s": n / us * 1e6})
        del w, x
        torch.cuda.empty_cache()


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("out")
    args.add_argument("--no-flashinfer", action="store_true")
    args = args.parse_args()
    torch.manual_seed(0)
    rows = []
    parts = [bandwidth, sdpa, selection, linear, prefill] + ([] if args.no_flashinfer else [flashinfer_decode])
    failed = []
    for part in parts:
        try:
            part(rows)
        except Exception as error:  # one missing peer must not cost the figures of the others
            failed.append({"part": part.__name__, "error": f"{type(error).__name__}: {error}"})
        torch.cuda.empty_cache()
        with open(args.out, "w") as f:
            driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                                    capture_output=True, text=True).stdout.strip()
            json.dump({"gpu": torch.cuda.get_device_name(), "driver": driver, "torch": torch.__version__,
                       "cuda": torch.version.cuda, "rows": rows, "failed": failed}, f, indent=1)
    for row in rows:
        print(" ".join(f"{k}={v:.1f}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))
    for row in failed:
        print(f"FAILED {row['part']}: {row['error']}")


if __name__ == "__main__":
    main()
