"""Held-out problems as JSON lines {"task", "prompt", "answer"}: none of their prompts can occur in training.

python heldout.py --seed 1 --per-task 100 > heldout.jsonl
"""

import argparse
import json

import tasks

if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--per-task", type=int, default=100)
    a.add_argument("--lo", type=int, default=1200, help="fewest tokens of working")
    a.add_argument("--hi", type=int, default=2400)
    a = a.parse_args()
    for problem in tasks.held_out_set(a.seed, a.per_task, a.lo, a.hi):
        print(json.dumps(problem))
