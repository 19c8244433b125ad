#!/usr/bin/env bash
# Runs the bundle of scripts/gpu-bundle.sh on a machine with a GPU:
#     run.sh tests [LOGS]      every CUDA test
#     run.sh sanitize [LOGS]   a short part of them under compute-sanitizer (memcheck, then racecheck)
#     run.sh bench ARGS...     the GPU benchmark; ARGS go to it
#     run.sh criterion ARGS... the same graphs under criterion
# Goes on after failures; logs lie in LOGS (default: logs beside this script); the summary comes last. Exit status 1
# if anything failed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mode=${1:-}
per_binary=${LIM_TEST_SECONDS:-120}  # time limit of one executable
summary=()
failed=0
if compgen -G "$here/*/*.gz" >/dev/null; then gunzip -f "$here"/tests/*.gz "$here"/bin/*.gz; fi

# note NAME STATUS LOG: one line of the summary, with the names of failed tests.
note() {
  local counts names
  counts=$(grep -h '^test result:' "$3" | sed 's/^test result: //; s/; 0 ignored; 0 measured//' | tail -n1)
  case $2 in
    0) summary+=("ok      $1  $counts") ;;
    124) summary+=("TIMEOUT $1"); failed=1 ;;
    *) summary+=("FAILED  $1 (status $2)  $counts"); failed=1 ;;
  esac
  names=$(grep -h '^test .*FAILED' "$3" | sed 's/^test //; s/ \.\.\. .*//' | sort -u | tr '\n' ' ')
  [ -z "$names" ] || summary+=("        failed: $names")
  if [ "$2" -ne 0 ]; then
    summary+=("$(grep -hE '^thread .* panicked|^assertion|^  (left|right):|========= (Invalid|Error|ERROR|Program)|: .*error' "$3" \
      | head -n 8 | cut -c1-220 | sed 's/^/        /')")
  fi
}

finish() {
  cat "$here/BUILT"
  printf '%s\n' "${summary[@]}"
  exit "$failed"
}

case $mode in
  tests)
    logs=${2:-$here/logs}; mkdir -p "$logs"
    for binary in "$here"/tests/*; do
      name=$(basename "$binary")
      timeout "$per_binary" "$binary" cuda:: --test-threads=1 >"$logs/$name.log" 2>&1
      note "$name" $? "$logs/$name.log"
    done
    finish
    ;;
  sanitize)
    logs=${2:-$here/logs}; mkdir -p "$logs"
    command -v compute-sanitizer >/dev/null || { echo "run.sh: compute-sanitizer is not on the PATH" >&2; exit 1; }
    # One body or more per kernel, small ones.
    tests="cuda::select::goldens cuda::select::page_rule cuda::attend::within_budget_is_dense cuda::append::rounding
      cuda::append::copied_page cuda::linear::embed cuda::linear::logits cuda::sample::greedy_and_logprob
      cuda::sample::read_behind cuda::gates::decode"
    # Under racecheck these are left out: it reports bulk copies that are waited for at an mbarrier, in cublasLt's kernels too.
    bulk="cuda::linear::linear_add cuda::linear::norm_gate_up cuda::select::beside_gate_up"
    for tool in memcheck racecheck; do
      log=$logs/$tool.log
      [ "$tool" = memcheck ] && more=$bulk || more=
      timeout "$per_binary" compute-sanitizer --tool "$tool" --error-exitcode 9 \
        "$here/tests/lim-kernels-ops" $tests $more --exact --test-threads=1 >"$log" 2>&1
      note "$tool" $? "$log"
    done
    finish
    ;;
  bench)
    shift
    exec "$here/bin/gpu" "$@"
    ;;
  criterion)
    shift
    exec "$here/bin/gpu-criterion" --bench "$@"
    ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
