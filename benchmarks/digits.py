"""Trains recipes with their digits preset, one after the other, and writes one table of what each reached.

python benchmarks/digits.py                       all first-party methods, to benchmarks/digits.md
python benchmarks/digits.py moco-v2 --out x.md    some
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPES = ("instdisc", "moco-v1", "moco-v2", "simclr", "cpc", "swav", "byol")
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--out", type=Path, default=HERE / "digits.md")
    arguments = parser.parse_args()
    lines = [
        "# The digits preset of each method",
        "",
        f"`python benchmarks/digits.py`; {os.cpu_count()} cores, no GPU. Loss: the means of the first and the last ten",
        "steps; they are not comparable between methods. Top-1 of weighted kNN on the hard scene of the digits.",
        "",
        "| recipe | epochs | first loss | last loss | this run % | untrained % | raw pixels % | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for recipe in arguments.recipes:
        lines.append(_row(recipe))
        print(lines[-1], flush=True)
        arguments.out.write_text("\n".join([*lines, ""]), "utf-8")


def _row(recipe: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "contralex", "train", recipe, "--preset", "digits", "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = json.loads((out / "results.json").read_text("utf-8"))
    judged = (found["knn"][name]["top1"] for name in ("this run", "untrained encoder", "raw pixels"))
    figures = " | ".join(f"{100 * top1:.1f}" for top1 in judged)
    losses = f"{found['first_loss']:.3f} | {found['last_loss']:.3f}"
    return f"| {recipe} | {found['epochs']} | {losses} | {figures} | {found['seconds']:.0f} |"


if __name__ == "__main__":
    main()
