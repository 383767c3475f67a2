"""What the parts of ``benchmarks/gpu.sh`` left in a folder, as one object. ``python -m benchmarks.gpu_results FOLDER
DEVICE BEGAN`` prints it as JSON, and exits with 1 where a part did not end well.

Of each part NAME the folder has ``NAME.rc`` (its exit code, or ``skipped``), ``NAME.most`` (the seconds that it had)
and, if it got so far, ``NAME.json``, a report. Of the tests it has ``tests.lines``, a line of JSON for each that began
or ended.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

KILLED = ("124", "137")  # by timeout


def collect(folder: Path) -> dict[str, Any]:
    exits = {file.stem: file.read_text("utf-8").strip() for file in sorted(folder.glob("*.rc"))}
    reports = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))}
    tests = read_tests(folder / "tests.lines")
    cut_off = {}
    for name, code in exits.items():
        if code == "skipped":
            cut_off[name] = "not begun: no time was left"
        elif code in KILLED:
            most = (folder / f"{name}.most").read_text("utf-8").strip()
            cut_off[name] = f"stopped after {most} s, {where(name, reports, tests)}"
    return {"exit": exits, "cut_off": cut_off, "benchmarks": reports, "tests": tests}


def where(name: str, reports: dict[str, Any], tests: dict[str, Any] | None) -> str:
    """How far a part came that was stopped."""
    if name == "tests":
        running = tests["running"] if tests else []
        return f"in {', '.join(running)}" if running else "before the first test"
    report = reports.get(name)
    if report is None:
        return "before its first case"
    if report["running"]:
        return f"in the case {report['running']}"
    return f"after the case {report['cases'][-1]['name']}" if report["cases"] else "before its first case was done"


def read_tests(file: Path) -> dict[str, Any] | None:
    """How many tests passed, failed or were skipped, which failed, and which had begun and had not ended."""
    if not file.exists():
        return None
    running: dict[str, None] = {}
    outcomes: dict[str, str] = {}
    failed = []
    for text in file.read_text("utf-8").splitlines():
        line = json.loads(text)
        if "outcome" not in line:
            running[line["test"]] = None
            continue
        running.pop(line["test"], None)
        outcomes[line["test"]] = line["outcome"]
        if line["outcome"] == "failed":
            failed.append(f"{line['test']} ({line['when']}): {line['message']}")
    counts = {name: list(outcomes.values()).count(name) for name in ("passed", "failed", "skipped")}
    return {**counts, "failures": failed, "running": list(running)}


def main() -> int:
    folder, device, began = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    found = {"device": device, "seconds": int(time.time()) - began, **collect(folder)}
    print(json.dumps(found, indent=1))
    return int(any(code != "0" for code in found["exit"].values()))


if __name__ == "__main__":
    sys.exit(main())
