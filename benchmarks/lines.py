"""How many lines each method is: ``python -m benchmarks.lines`` writes ``benchmarks/lines.md``.

Counted are lines with code on them, as Python's tokenizer sees them: neither blank, nor a comment, nor a docstring.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_DECLARES = ("spec.py", "plugin.py", "layouts.py", "__init__.py")


def main() -> None:
    (ROOT / "benchmarks/lines.md").write_text(page(), "utf-8")


def page() -> str:
    rows = [row(folder) for folder in sorted((ROOT / "plugins").iterdir()) if (folder / "pyproject.toml").is_file()]
    core = [path for path in (ROOT / "core/src").rglob("*.py") if "templates" not in path.parts]
    look_up = ROOT / "core/src/contralex/lookup/step.py"
    total = [sum(numbers) for numbers in zip(*(numbers for _, _, *numbers in rows), strict=True)]
    lines = [
        "# The size of each method",
        "",
        "`python -m benchmarks.lines` writes this. *Python*: all lines of the plugin's `src/`. *Code*: those that are",
        "neither blank, nor comment, nor docstring. *Parts*: the code outside `spec.py`, `plugin.py` and `layouts.py`",
        "(names in published checkpoints), that is, what the method computes that no other does. *YAML*: its recipes.",
        "",
        "| plugin | recipes | Python | code | parts | YAML |",
        "|---|---|---|---|---|---|",
        *(f"| {name} | {', '.join(recipes)} | {' | '.join(map(str, numbers))} |" for name, recipes, *numbers in rows),
        f"| all | | {' | '.join(map(str, total))} |",
        "",
        f"The core has {sum(map(written, core))} lines, {sum(map(code, core))} of them code; the step that all methods",
        f"share (`lookup/step.py`) has {written(look_up)}, {code(look_up)} of them code.",
        "",
    ]
    return "\n".join(lines)


def row(folder: Path) -> tuple[str, list[str], int, int, int, int]:
    files = sorted((folder / "src").rglob("*.py"))
    recipes = sorted((folder / "src").rglob("recipes/*.yaml"))
    parts = [path for path in files if path.name not in _DECLARES]
    return (
        folder.name,
        [path.stem for path in recipes],
        sum(map(written, files)),
        sum(map(code, files)),
        sum(map(code, parts)),
        sum(map(written, recipes)),
    )


def written(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def code(path: Path) -> int:
    text = path.read_text("utf-8")
    lines = {
        number
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NO_CODE
        for number in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docstrings(ast.parse(text)))


def docstrings(tree: ast.Module) -> set[int]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            found |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


if __name__ == "__main__":
    main()
