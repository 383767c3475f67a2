"""What every installed recipe resolves to, bare and with each of its presets: to compare before and after a change.

``python tools/resolved.py FILE`` writes the values and the digest of each into a JSON file;
``python tools/resolved.py BEFORE AFTER`` prints what differs between two such files, in Markdown.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from contralex.errors import ContralexError
from contralex.plugins.registry import registry
from contralex.recipes.documents import chain
from contralex.recipes.layers import resolve
from contralex.recipes.merging import dotted, leaves

Runs = dict[str, dict[str, Any]]  # "moco-v2 --preset digits" -> its digest and values
_ABSENT = "(absent)"


def runs() -> Runs:
    found: Runs = {}
    for name in sorted(registry().recipes()):
        presets = sorted({preset for recipe in chain(name) for preset in recipe.presets})
        for preset in (None, *presets):
            found[name if preset is None else f"{name} --preset {preset}"] = _run(name, preset)
    return found


def _run(name: str, preset: str | None) -> dict[str, Any]:
    try:
        resolved = resolve(name, preset=preset)
    except ContralexError as error:
        return {"digest": None, "values": {"refused": str(error)}}
    return {"digest": resolved.digest, "values": {dotted(path): value for path, value in leaves(resolved.data)}}


def differences(before: Runs, after: Runs) -> str:
    lines = []
    for run in [*before, *(run for run in after if run not in before)]:
        if run not in before or run not in after:
            lines.append(f"* `{run}`: {'new' if run in after else 'gone'}\n")
        elif before[run] != after[run]:
            old, new = before[run]["values"], after[run]["values"]
            paths = [path for path in [*old, *(path for path in new if path not in old)] if _changed(path, old, new)]
            lines.append(f"* `{run}`\n" if paths else f"* `{run}`: the digest alone, by the order of its keys\n")
            lines += [f"  * `{path}`: {_value(path, old)} → {_value(path, new)}\n" for path in paths]
    return "".join(lines) or "Every recipe resolves as before.\n"


def _changed(path: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    return _value(path, old) != _value(path, new)


def _value(path: str, values: dict[str, Any]) -> str:
    return json.dumps(values[path]) if path in values else _ABSENT


def main(arguments: list[str]) -> int:
    if len(arguments) == 1:
        Path(arguments[0]).write_text(json.dumps(runs(), indent=1) + "\n", "utf-8")
    elif len(arguments) == 2:
        before, after = (json.loads(Path(file).read_text("utf-8")) for file in arguments)
        print(differences(before, after), end="")
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
