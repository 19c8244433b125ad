#!/usr/bin/env bash
# Finds or installs what `--features cuda` builds with, and prints the shell lines that make it visible:
#     eval "$(scripts/cuda-toolkit.sh)"
# A toolkit named by CUDA_HOME, or the one whose nvcc is on the PATH, is taken as it is. Otherwise the pinned PyPI
# wheels below go to .toolkit/ (about 400 MB, once). libclang, which scripts/bindgen.sh needs, is taken from
# LIBCLANG_PATH if that is set.
set -euo pipefail
cd "$(dirname "$0")/.."

nvcc_wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85)
libclang_wheel=libclang==18.1.1
venv=$PWD/.toolkit

fail() { printf 'cuda-toolkit: %s\n' "$*" >&2; exit 1; }

# Installs wheels into .toolkit/ unless a file there says that it has been done.
install() {
  local mark=$venv/installed-$1; shift
  [ -e "$mark" ] && return
  local python; python=$(command -v python3) || fail "python3 is needed to install $*"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" >&2 || fail "cannot make a virtual environment in $venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2 || fail "pip could not install $*"
  touch "$mark"
}

# The first match of a glob under .toolkit/.
in_venv() { compgen -G "$venv/lib/python3*/site-packages/$1" | head -n1; }

if [ -n "${CUDA_HOME:-}" ]; then
  [ -x "$CUDA_HOME/bin/nvcc" ] || fail "CUDA_HOME is $CUDA_HOME, which holds no bin/nvcc"
  home=$CUDA_HOME
elif nvcc=$(command -v nvcc); then
  home=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
else
  install nvcc "${nvcc_wheels[@]}"
  home=$(in_venv nvidia/cu13) || fail "the wheels hold no nvidia/cu13"
fi
"$home/bin/nvcc" --version >&2 || fail "$home/bin/nvcc does not run"

clang=${LIBCLANG_PATH:-}
if [ -z "$clang" ]; then
  install libclang "$libclang_wheel"
  clang=$(in_venv clang/native) || fail "the wheel $libclang_wheel holds no clang/native"
fi

printf 'export CUDA_HOME=%q\nexport NVCC=%q\nexport LIBCLANG_PATH=%q\n' "$home" "$home/bin/nvcc" "$clang"
