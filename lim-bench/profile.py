"""Where a decode step's time goes, by kernel: runs a command under Nsight Compute and prints the last whole step.

    python3 lim-bench/profile.py lim-cli bench --random-weights qwen3-8b -r 1 -p 0 -n 3 -d 32768 --attention lim

Kernels run one after the other under the profiler, so their sum exceeds the step's own time by what overlaps there: the
start of a kernel and the end of the one before it. Caches are left as they are. Needs ncu.
"""

import collections
import csv
import math
import re
import subprocess
import sys

METRIC = "gpu__time_duration.sum"
NCU = ["ncu", "--clock-control", "none", "--cache-control", "none", "--metrics", METRIC, "--csv", "--page", "raw"]
UNITS = {"ns": 1e-3, "us": 1.0, "ms": 1e3}
# What a kernel is for; template arguments tell the products apart. First match counts.
CLASSES = [
    ("embedding", r"embed_kernel"),
    ("RMSNorm", r"rms_norm"),
    ("append", r"append_kernel"),
    ("attention", r"attend_kernel"),
    ("selection", r"(rows|few|cut|top|total|union|share|score)_kernel|pool|gates"),
    ("products", r"linear|feed_forward|gemm|nvjet|cutlass|swiglu|bias_kernel"),
    ("sampling", r"sample|seen|draw"),
]


def profiled(command):
    """(kernel, microseconds) in the order of launches."""
    run = subprocess.run(NCU + command, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        print(f"profile.py: ncu ended with status {run.returncode}; its last lines:", file=sys.stderr)
        print("\n".join(run.stdout.splitlines()[-3:]), file=sys.stderr)
    rows = list(csv.reader(run.stdout.splitlines()))
    head = next((i for i, row in enumerate(rows) if row[:1] == ["ID"]), None)
    if head is None:
        sys.exit("profile.py: no kernel was profiled")
    name, time = rows[head].index("Kernel Name"), rows[head].index(METRIC)
    unit = UNITS[rows[head + 1][time]]
    body = [row for row in rows[head + 2 :] if len(row) == len(rows[head])]
    return [(row[name], float(row[time].replace(",", "")) * unit) for row in body]


def last_step(kernels):
    starts = [i for i, (name, _) in enumerate(kernels) if "embed_kernel" in name]
    for start, end in reversed(list(zip(starts, starts[1:]))):
        if not any(math.isnan(us) for _, us in kernels[start:end]):
            return kernels[start:end]
    sys.exit("profile.py: no whole step was profiled")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    step = last_step(profiled(sys.argv[1:]))
    total = sum(us for _, us in step)
    classes = collections.defaultdict(list)
    for name, us in step:
        classes[next((c for c, pattern in CLASSES if re.search(pattern, name)), name)].append(us)
    print("| kernels | number | us | of the sum | shortest | longest |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, times in sorted(classes.items(), key=lambda item: -sum(item[1])):
        spread = f"{min(times):.1f} | {max(times):.1f}"
        print(f"| {name} | {len(times)} | {sum(times):.0f} | {100 * sum(times) / total:.1f}% | {spread} |")
    print(f"| all | {len(step)} | {total:.0f} | 100% | | |")


if __name__ == "__main__":
    main()
