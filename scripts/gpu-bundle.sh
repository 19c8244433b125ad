#!/usr/bin/env bash
# Builds the CUDA tests and the GPU benchmark and collects them in dist/, for a machine that has a GPU but no Rust:
#     eval "$(scripts/cuda-toolkit.sh)"; scripts/gpu-bundle.sh; dist/run.sh tests
# LIM_CUDA_ARCHS narrows the architectures (default here: 90a).
set -euo pipefail
cd "$(dirname "$0")/.."
export LIM_CUDA_ARCHS=${LIM_CUDA_ARCHS:-90a}
limit_mib=50

# Prints `package target path` of every test executable and of the binaries named on the command line of cargo.
executables() {
  cargo "$@" --message-format=json | python3 -c '
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("reason") == "compiler-artifact" and m.get("executable"):
        package = m["package_id"].rsplit("/", 1)[-1].split("#")[0].split("@")[0]
        print(package, m["target"]["name"], m["executable"])'
}

rm -rf dist
mkdir -p dist/tests dist/bin

for package in lim-kernels lim-kvcache lim-select lim-model lim-cli; do
  executables test --release -p "$package" --features cuda --no-run | while read -r package target path; do
    # Only executables that have tests for a GPU. Not grep -q, which leaves at its first match: the list would end at a broken
    # pipe, and count as none.
    if "$path" --list 2>/dev/null | grep -E '(^|::)cuda::.*: test$' >/dev/null; then
      install -s "$path" "dist/tests/$package-$target"
    fi
  done
done
[ -n "$(ls dist/tests)" ] || { echo "gpu-bundle: no executable has a test in a module cuda" >&2; exit 1; }

executables build --release -p lim-bench -p lim-cli --features lim-bench/cuda,lim-cli/cuda --bins |
  while read -r _ target path; do install -s "$path" "dist/bin/$target"; done

executables bench -p lim-bench --features cuda --bench gpu --no-run |
  while read -r _ _ path; do install -s "$path" dist/bin/gpu-criterion; done

gzip -6 dist/tests/* dist/bin/*
install scripts/gpu-run.sh dist/run.sh
{
  git log -1 --format='commit %H'
  git diff --quiet HEAD || echo 'with uncommitted changes'
  echo "architectures $LIM_CUDA_ARCHS"
} >dist/BUILT

size=$(du -sm dist | cut -f1)
du -sh dist/tests/* dist/bin/*
echo "dist: $size MiB"
[ "$size" -lt "$limit_mib" ] || { echo "gpu-bundle: more than $limit_mib MiB" >&2; exit 1; }
