"""Answers of the demo model to held-out problems under attention policies and budgets, by `lim-cli` itself.

    python3 lim-bench/accuracy.py target/release/lim-cli OUT [--per-task 20] [--jobs 2] [--policies full lim:64 ...] [--device cuda]

A policy is `full`, `default` (whatever the model's lim.json says), `NAME:K`, or `NAME:K:LAYERS` with LAYERS as
`lim-cli --layers` takes them. Every problem is one greedy `generate`, on the CPU with one thread. Each answer is appended
to OUT.jsonl at once; a run that was stopped goes on where it was, and one with everything answered only summarises, to
OUT.json and OUT.md. Python 3.9, standard library. Tasks and answers: lim-bench/train/README.md.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
POLICIES = ["full", "default"] + [f"{p}:{k}" for p in ("lim", "tidal", "quest", "streaming") for k in (64, 128, 256)]


def flags(policy):
    """Command-line flags of a policy as this script spells it."""
    if policy == "default":
        return []
    name, *rest = policy.split(":", 2)
    return ["--attention", name] + [part for pair in zip(["--token-budget", "--layers"], rest) for part in pair]


def problems(path, per_task):
    """The first problems of each task, tasks in turn, so that a stopped run has seen all of them."""
    tasks = defaultdict(list)
    for line in path.read_text().splitlines():
        problem = json.loads(line)
        if len(tasks[problem["task"]]) < per_task:
            tasks[problem["task"]].append(problem)
    return [p for i in range(per_task) for task in tasks.values() for p in task[i : i + 1]]


def answer(text):
    """What stands after the last `=`; nothing without one."""
    return text.rsplit("=", 1)[1].strip() if "=" in text else None


def solve(cli, device, policy, problem, cap):
    """One problem's record."""
    command = [cli, "generate", problem["prompt"], "--device", device, "--threads", "1", "--temperature", "0",
               "-n", str(cap), "--output", "json", "--quiet", *flags(policy)]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.monotonic() - begun
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    sample, sparsity = result["samples"][0], result["sparsity"]
    given = answer(sample["text"])
    stopped = sample["finish_reason"] == "stop"
    return {"policy": policy, "task": problem["task"], "prompt": problem["prompt"], "cap": cap,
            "expected": problem["answer"], "answer": given, "right": stopped and given == problem["answer"],
            "finish_reason": sample["finish_reason"], "tokens": len(sample["token_ids"]), "wall_s": round(wall, 3),
            "context": sparsity["mean_context_tokens"], "attended": sparsity["mean_attended_tokens"],
            "attention": result["attention"]}


def summary(policy, records):
    """One row of the table. Attended and context tokens are means over steps and layers."""
    tokens = sum(r["tokens"] for r in records)
    per_step = lambda key: round(sum(r[key] * r["tokens"] for r in records) / tokens, 1) if tokens else None
    tasks = defaultdict(lambda: {"right": 0, "of": 0})
    for r in records:
        tasks[r["task"]]["right"] += r["right"]
        tasks[r["task"]]["of"] += 1
    return {"policy": policy, "attention": records[0]["attention"], "tasks": dict(tasks),
            "mean_tokens": round(tokens / len(records), 1),
            "truncated": sum(r["finish_reason"] != "stop" for r in records),
            "attended_per_step": per_step("attended"), "context_per_step": per_step("context"),
            "wall_s": round(sum(r["wall_s"] for r in records), 1)}


def layers(attention):
    """Dense and select layers as the run reported them."""
    def join(key):
        return ",".join(map(str, attention.get(key) or [])) or "-"

    return f"{join('dense_layers')} / {join('select_layers')}" if attention["policy"] != "full" else "all"


def markdown(rows):
    tasks = sorted({task for row in rows for task in row["tasks"]})
    head = ["policy", "K", "dense / select layers", *tasks, "tokens", "truncated", "attended", "of context", "wall s"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        attention = row["attention"]
        name = attention["policy"] + (" (default)" if row["policy"] == "default" else "")
        right = [f"{t['right']}/{t['of']}" for t in (row["tasks"].get(x, {"right": 0, "of": 0}) for x in tasks)]
        lines.append([name, attention.get("token_budget") or "-", layers(attention), *right, row["mean_tokens"],
                      row["truncated"], row["attended_per_step"], row["context_per_step"], row["wall_s"]])
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cli", help="the lim-cli to run")
    parser.add_argument("out", help="results go to OUT.jsonl, OUT.json and OUT.md")
    parser.add_argument("--problems", type=Path, default=HERE / "train" / "heldout.jsonl")
    parser.add_argument("--per-task", type=int, default=20, help="problems of each task")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--device", default="cpu", help="as lim-cli --device")
    parser.add_argument("-n", type=int, default=3000, help="most tokens of an answer")
    args = parser.parse_args()

    log, wanted = Path(args.out + ".jsonl"), problems(args.problems, args.per_task)
    log.parent.mkdir(parents=True, exist_ok=True)
    records = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        record = json.loads(line)
        records[record["policy"], record["prompt"], record["cap"]] = record
    jobs = [(policy, p) for p in wanted for policy in args.policies if (policy, p["prompt"], args.n) not in records]
    print(f"{len(jobs)} of {len(wanted) * len(args.policies)} answers to go", file=sys.stderr)

    lock, failed = threading.Lock(), []
    with log.open("a") as out, ThreadPoolExecutor(args.jobs) as pool:

        def work(job):
            policy, problem = job
            try:
                record = solve(args.cli, args.device, policy, problem, args.n)
            except (OSError, RuntimeError, ValueError, KeyError, IndexError) as error:
                with lock:
                    failed.append(f"{policy}: {problem['prompt']}: {error}")
                    print(f"FAILED {failed[-1]}", file=sys.stderr)
                return
            with lock:
                records[policy, problem["prompt"], args.n] = record
                print(json.dumps(record, ensure_ascii=False), file=out, flush=True)

        list(pool.map(work, jobs))

    rows = []
    for policy in args.policies:
        mine = [records[key] for p in wanted if (key := (policy, p["prompt"], args.n)) in records]
        rows += [summary(policy, mine)] if mine else []
    problem_set = {"file": args.problems.name, "per_task": args.per_task, "max_new_tokens": args.n}
    result = {"problems": problem_set, "rows": rows, "failed": failed}
    Path(args.out + ".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    Path(args.out + ".md").write_text(markdown(rows))
    print(markdown(rows), end="")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
