"""How far several processes are from one, for every method and every key encoder with every negative source.

python -m benchmarks.invariance                   to benchmarks/invariance.md
python -m benchmarks.invariance densecl tico      their rows alone; the others stay
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.distributed import invariance

COLUMNS = ("loss", "gradient", "last gradient", "state")
WORLDS = (2, 4)
FILE = Path(__file__).with_suffix(".md")
_START, _END = "<!-- written by benchmarks/invariance.py -->\n", "<!-- /written -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="Cases of tests/distributed/invariance.py; without any, all.")
    cases = parser.parse_args().cases or list(invariance.CASES)
    torch.set_num_threads(1)
    rows = measure(cases)
    print("\n".join(rows.values()))
    before, written, after = _read()
    rows = written | rows
    head = [f"{column}, {world}" for world in WORLDS for column in COLUMNS]
    table = [f"| method | {' | '.join(head)} |", "|" + "---|" * (len(head) + 1)]
    table += [rows[case] for case in invariance.CASES if case in rows]
    FILE.write_text(f"{before}{_START}\n" + "\n".join(table) + f"\n{_END}{after}", "utf-8")


def measure(cases: Sequence[str]) -> dict[str, str]:
    """A row of the table for each of the cases."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = invariance.alone(cases, folder)
        ranks = {world: invariance.together(world, cases, folder) for world in WORLDS}
    rows = {}
    for case in cases:
        cells = []
        for world in WORLDS:
            apart = [invariance.difference(one[case], rank[case]) for rank in ranks[world]]
            cells += [max(each[column] for each in apart) for column in COLUMNS]
        shown = [f"**{cell:.0e}**" if cell > 1e-5 else f"{cell:.0e}" for cell in cells]
        rows[case] = f"| {case} | {' | '.join(shown)} |"
    return rows


def _read() -> tuple[str, dict[str, str], str]:
    """What stands before the table, its rows by case, and what stands after it."""
    text = FILE.read_text("utf-8") if FILE.exists() else f"{_START}{_END}"
    before, rest = text.split(_START)
    written, after = rest.split(_END)
    return before, {line.split(" | ")[0].removeprefix("| "): line for line in written.splitlines() if line}, after


if __name__ == "__main__":
    main()
