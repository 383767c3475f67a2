#!/usr/bin/env bash
# The check of one GPU, in at most eight minutes: tests/gpu, steps of a ResNet-50 at 224 pixels, the tables of losses,
# queue and EMA, images/s from files. Prints one JSON object to stdout, which says what was cut off; everything else goes
# to stderr. Needs an environment with contralex and its plugins (make, or make bench-env for peers), and nothing from
# outside.
#
#   benchmarks/gpu.sh                          on a GPU of CUDA
#   benchmarks/gpu.sh --device cpu --small     a rehearsal without one, at the smallest sizes
#   PYTHON=/path/to/python benchmarks/gpu.sh   with another Python than .venv's
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DEVICE=cuda SMALL=
while [ $# -gt 0 ]; do
  case $1 in
    --device) DEVICE=$2; shift 2 ;;
    --small) SMALL=--small; shift ;;
    *) echo "gpu.sh: it takes --device cuda|cpu and --small, not $1" >&2; exit 2 ;;
  esac
done
if [ "$DEVICE" = cuda ] && ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "gpu.sh: there is no GPU of CUDA here; rehearse with --device cpu --small" >&2; exit 2
fi
OUT=$(mktemp -d); trap 'rm -rf "$OUT"' EXIT
BEGAN=$(date +%s)
left() { echo $((BEGAN + 470 - $(date +%s))); }  # of eight minutes, with some seconds to collect
# run NAME MOST COMMAND...: for at most MOST seconds, and what is left. Its exit code goes to NAME.rc, its seconds to
# NAME.most. Each part writes what it has after each case, so that one that is stopped loses no more than a case.
run() {
  name=$1 most=$2; shift 2
  now=$(left); [ "$now" -lt "$most" ] && most=$now
  if [ "$most" -le 0 ]; then echo skipped > "$OUT/$name.rc"; return; fi
  echo "$most" > "$OUT/$name.most"
  timeout -k 5 "$most" "$@" >&2; echo $? > "$OUT/$name.rc"
}
[ "$DEVICE" = cpu ] && export CONTRALEX_GPU_TESTS=cpu
bench() { run "$1" "$2" "$PYTHON" -m "benchmarks.$1" --device "$DEVICE" $SMALL --rounds "$3" --json "$OUT/$1.json"; }
bench gpu 80 3
bench loss 60 5
bench queue 25 5
bench ema 25 5
bench micro_batches 90 1
bench workers 100 1
# Last, because it may take all that is left. Several at once share the GPU, each with a core for its CPU's side.
CORES=$(nproc) && AT_ONCE=$((CORES < 4 ? 0 : CORES < 16 ? CORES / 2 : 8))
[ "$AT_ONCE" -gt 0 ] && export OMP_NUM_THREADS=1
export CONTRALEX_GPU_RESULTS="$OUT/tests.lines"
run tests 470 "$PYTHON" -m pytest tests/gpu -q -n "$AT_ONCE" -p no:cacheprovider ${SMALL:+-k "moco or collectives"}
"$PYTHON" -m benchmarks.gpu_results "$OUT" "$DEVICE" "$BEGAN"
