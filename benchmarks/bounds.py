"""What contralex promises of its speed and memory, measured: a line for each figure, with its bound.

python -m benchmarks.bounds                       in the peers' environment (make bench-env), on an idle machine
python -m benchmarks.bounds --only loss queue     some groups of lines alone
python -m benchmarks.bounds --json bounds.json --plot bounds.svg

It takes at most twenty minutes on two cores. A group of lines that would end after them is left out, and named. The
exit code is 1 where a figure falls short of its bound. A line that cannot be measured here (a peer is absent, or this
version lacks what it is about) says so, and does not count.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bounds_plot import draw
from benchmarks.measuring import Options, Peers, describe_machine
from benchmarks.promises import GROUPS, Group, Line

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 20.0  # minutes


@dataclass
class Measured:
    """The lines of some groups."""

    lines: dict[str, list[Line]] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """The groups of which lines were not measured because the time was over."""

    def count(self, verdict: str) -> int:
        return sum(line.verdict == verdict for lines in self.lines.values() for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bounds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="Write the lines to this file.")
    parser.add_argument("--plot", type=Path, help="Draw each figure relative to its bound into this SVG file.")
    parser.add_argument("--rounds", type=int, default=5, help="Times that each side runs after its warm-up.")
    parser.add_argument("--only", nargs="*", choices=sorted(GROUPS), help="Measure these groups alone.")
    parser.add_argument("--small", action="store_true", help="Run the smallest sizes, whose verdicts mean nothing.")
    arguments = parser.parse_args()
    options, peers = Options(arguments.small, 2 if arguments.small else arguments.rounds), Peers()
    about = describe_run()
    names = arguments.only or GROUPS
    found = measure({name: GROUPS[name] for name in names}, options, peers)
    print(f"\nOf commit {about['commit']}; {about['machine']['processor']}, torch {about['machine']['torch']}")
    print(", ".join(f"{name} {minutes:.1f}" for name, minutes in found.minutes.items()), "minutes")
    if found.left_out:
        print(f"Not measured, or not all, because {LIMIT:.0f} minutes were over: {', '.join(found.left_out)}")
    held, short, total = found.count("holds"), found.count("falls short"), sum(map(len, found.lines.values()))
    print(f"{held} of {total} hold, {short} fall short, in {sum(found.minutes.values()):.1f} minutes")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(about | report(found), indent=1) + "\n", "utf-8")
    if arguments.plot is not None:
        draw([line for lines in found.lines.values() for line in lines], arguments.plot)
    sys.exit(1 if short else 0)


def measure(groups: Mapping[str, Group], options: Options, peers: Peers, limit: float = LIMIT) -> Measured:
    """Measure group after group, as long as they end within ``limit`` minutes, and print their lines."""
    began, expected, found = time.perf_counter(), 0.0, Measured()
    for name, group in groups.items():
        start = _minutes_since(began)
        pace = max(1.0, start / expected) if expected else 1.0  # of this machine
        if start + pace * group.minutes > limit:
            found.left_out.append(name)
            print(f"not measured  group {name}: {limit:g} minutes would be over", flush=True)
            continue
        found.lines[name] = []
        for line in group.lines(options, peers):
            found.lines[name].append(line)
            print(line, flush=True)
            if _minutes_since(began) > limit:
                found.left_out.append(name)
                print(f"not measured  more of group {name}: {limit:g} minutes were over", flush=True)
                break
        expected += group.minutes
        found.minutes[name] = _minutes_since(began) - start
        print(f"{'':14}group {name}: {found.minutes[name]:.1f} minutes", flush=True)
    return found


def describe_run() -> dict[str, Any]:
    """What the figures are of, and where and when they were made."""
    command = shlex.join(["python", "-m", "benchmarks.bounds", *sys.argv[1:]])
    date = datetime.now(UTC).isoformat(timespec="minutes")
    return {"command": command, "date": date, "commit": _commit(), "machine": describe_machine()}


def report(found: Measured) -> dict[str, Any]:
    lines = [
        {"group": name} | asdict(line) | {"verdict": line.verdict}
        for name, group in found.lines.items()
        for line in group
    ]
    minutes = {name: round(minutes, 2) for name, minutes in found.minutes.items()}
    total = round(sum(found.minutes.values()), 2)
    return {"minutes": total, "minutes_by_group": minutes, "left_out": found.left_out, "lines": lines}


def _minutes_since(began: float) -> float:
    return (time.perf_counter() - began) / 60


def _commit() -> str | None:
    """The commit of this clone; with a plus sign where files differ from it."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=7", "--dirty=+"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    main()
