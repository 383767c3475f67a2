#!/usr/bin/env bash
# The check of one GPU, in at most eight minutes: tests/gpu, a step of ResNet-50 at 224 pixels, the tables of losses, queue and EMA.
# Prints one JSON object to stdout; everything else goes to stderr. Needs an environment with contralex and its plugins
# (make, or make bench-env for peers), and nothing from outside.
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
# run NAME MOST COMMAND...: for at most MOST seconds, and what is left. Its exit code goes to NAME.rc.
run() {
  name=$1 most=$2; shift 2
  now=$(left); [ "$now" -lt "$most" ] && most=$now
  if [ "$most" -le 0 ]; then echo skipped > "$OUT/$name.rc"; return; fi
  timeout -k 5 "$most" "$@" >&2; echo $? > "$OUT/$name.rc"
}
[ "$DEVICE" = cpu ] && export CONTRALEX_GPU_TESTS=cpu
run gpu 110 "$PYTHON" -m benchmarks.gpu --device "$DEVICE" $SMALL --rounds 3 --json "$OUT/gpu.json"
run loss 70 "$PYTHON" -m benchmarks.loss --device "$DEVICE" $SMALL --rounds 5 --json "$OUT/loss.json"
run queue 30 "$PYTHON" -m benchmarks.queue --device "$DEVICE" $SMALL --rounds 5 --json "$OUT/queue.json"
run ema 30 "$PYTHON" -m benchmarks.ema --device "$DEVICE" $SMALL --rounds 5 --json "$OUT/ema.json"
# Last, because it may take all that is left. Several at once share the GPU, each with a core for its CPU's side.
CORES=$(nproc) && AT_ONCE=$((CORES < 4 ? 0 : CORES < 16 ? CORES / 2 : 8))
[ "$AT_ONCE" -gt 0 ] && export OMP_NUM_THREADS=1
run tests 470 "$PYTHON" -m pytest tests/gpu -q -n "$AT_ONCE" -p no:cacheprovider ${SMALL:+-k "moco or collectives"} --junitxml="$OUT/tests.xml"
"$PYTHON" - "$OUT" "$DEVICE" "$BEGAN" <<'END'
import json, sys, time
from pathlib import Path
from xml.etree import ElementTree

out, device, began = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
found = {"device": device, "seconds": int(time.time()) - began, "exit": {}, "benchmarks": {}, "tests": None}
for file in sorted(out.glob("*.rc")):
    found["exit"][file.stem] = file.read_text().strip()
for file in sorted(out.glob("*.json")):
    found["benchmarks"][file.stem] = json.loads(file.read_text("utf-8"))
if (out / "tests.xml").exists():
    suite = ElementTree.parse(out / "tests.xml").getroot().find("testsuite")
    counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        case.get("name") + ": " + (bad.get("message") or "")[:300]
        for case in suite.iter("testcase")
        for bad in (*case.findall("failure"), *case.findall("error"))
    ]
    found["tests"] = {**counts, "failed": failed}
print(json.dumps(found, indent=1))
sys.exit(any(code != "0" for code in found["exit"].values()))
END
