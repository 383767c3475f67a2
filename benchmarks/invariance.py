"""How far several processes are from one, for every method and every key encoder with every negative source.

python -m benchmarks.invariance                   to benchmarks/invariance.md
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from tests.distributed import invariance

COLUMNS = ("loss", "gradient", "last gradient", "state")


def main() -> None:
    torch.set_num_threads(1)
    worlds = (2, 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = invariance.alone(list(invariance.CASES), folder)
        ranks = {world: invariance.together(world, list(invariance.CASES), folder) for world in worlds}
    head = [f"{column}, {world}" for world in worlds for column in COLUMNS]
    rows = [f"| method | {' | '.join(head)} |", "|" + "---|" * (len(head) + 1)]
    for case in invariance.CASES:
        cells = []
        for world in worlds:
            apart = [invariance.difference(one[case], rank[case]) for rank in ranks[world]]
            cells += [max(each[column] for each in apart) for column in COLUMNS]
        rows.append(f"| {case} | {' | '.join(f'**{cell:.0e}**' if cell > 1e-5 else f'{cell:.0e}' for cell in cells)} |")
    print("\n".join(rows))
    file = Path(__file__).with_suffix(".md")
    text = file.read_text("utf-8") if file.exists() else f"{_START}{_END}"
    before, after = text.split(_START)[0], text.split(_END)[1]
    file.write_text(f"{before}{_START}\n" + "\n".join(rows) + f"\n{_END}{after}", "utf-8")


_START, _END = "<!-- written by benchmarks/invariance.py -->\n", "<!-- /written -->\n"

if __name__ == "__main__":
    main()
