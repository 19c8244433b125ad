#!/usr/bin/env bash
# Writes lim-kernels/src/cuda/ffi.rs from csrc/lim_kernels.h; with --check, fails where the file is not current.
# Needs libclang: eval "$(scripts/cuda-toolkit.sh)" first.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --quiet --release -p lim-kernels --features bindgen --example bindgen -- "$@"
