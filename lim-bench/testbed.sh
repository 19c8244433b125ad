#!/usr/bin/env bash
# Every policy at budgets from 32 to 512 on the held-out problems: what docs/results.md shows.
#     lim-bench/testbed.sh LIM_CLI OUT "POLICY..." "LAYERS..." ["K..."] [-- ARGS...]
# POLICYs that choose in select layers run with each of LAYERS (as --layers takes them; tidal and the like with the first
# alone), the others as they are. ARGS go to lim-cli eval.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 4 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cli=$1 out=$2 policies=$3 layers=$4
shift 4
budgets="32 64 128 256 512"
if [ $# -gt 0 ] && [ "$1" != -- ]; then budgets=$1; shift; fi
[ "${1:-}" != -- ] || shift

settings=full
for policy in $policies; do
  case $policy in
    lim) of=$layers ;;
    tidal | kascade | omnikv | delta | topp) of=${layers%% *} ;;
    *) of= ;;
  esac
  for k in $budgets; do
    if [ -z "$of" ]; then settings+=,$policy:$k; fi
    for l in $of; do settings+=,$policy:$k:$l; done
  done
done
exec "$cli" eval "$here/train/heldout.jsonl" --attention "$settings" -n 3000 --no-text --out "$out" "$@"
