"""The shape of the code, measured: which module imports which, and what is left of habits that the project gave up.

``python tools/shape.py [FOLDER]`` prints the figures of a checkout (without FOLDER, of this one). To compare with
another revision: ``git archive REVISION | tar -x -C FOLDER``.

The folders of ``core/src/contralex`` are a staircase, ``STAIRCASE``: each imports from those above it in that list,
and from its own. Imports inside functions and imports for types count like all others; the strings by which a spec
names its part do not, because the spec works without it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = "contralex"
GROUND = "single files"  # errors, files, streams, ...
DOORS = "doors"
# From the ground up. Folders on one step do not import each other.
STAIRCASE = (
    (GROUND,),
    ("lookup",),
    ("data",),
    ("plugins",),
    ("recipes",),
    ("kinds",),
    ("evaluation",),
    ("training",),
    ("comparison", "explaining", "exporting", "importing", "testing"),
    ("reporting",),
    ("api",),
    ("cli",),
    (DOORS,),
)
FILES = {CORE: DOORS, f"{CORE}.plugin": DOORS, f"{CORE}.__main__": "cli"}  # single files that are not on the ground
PUBLIC = (CORE, f"{CORE}.plugin", f"{CORE}.testing")  # what a plugin may import of the core

_PARTICIPLES = {"built", "drawn", "found", "given", "held", "kept", "known", "left", "lost", "made", "meant", "said"}
_PARTICIPLES |= {"seen", "sent", "shown", "taken", "told", "written"}
_NOT_PARTICIPLES = {"embed", "feed", "need", "proceed", "seed", "speed"}


@dataclass(frozen=True)
class Module:
    """A Python file, and the modules of the core that it imports."""

    name: str
    path: Path
    tree: ast.Module
    imports: frozenset[str] = field(default=frozenset())


def figures(root: Path) -> dict[str, int | None]:
    """The figures of a checkout, each by what it counts. None where its folders are not those of the staircase."""
    core = read_core(root / "core" / "src")
    plugins = [parse(path) for path in sorted((root / "plugins").glob("*/src/**/*.py"))]
    trees = [*(module.tree for module in core.values()), *plugins]
    return {
        "modules of the core": len(core),
        "imports that climb": len(climbs(core)) if on_staircase(core) else None,
        "modules in the largest component": max(map(len, components(core)), default=0),
        "lines of the core": sum(len(module.path.read_text("utf-8").splitlines()) for module in core.values()),
        "build() written by hand": sum(map(hand_written_builds, trees)),
        "asserts that something is not None": sum(map(asserts_not_none, trees)),
        "names that plugins import from private modules": sum(len(private_imports(tree, core)) for tree in plugins),
        "functions named by a participle": sum(len(list(participles(tree))) for tree in trees),
    }


def read_core(source: Path) -> dict[str, Module]:
    """Each module of the core below ``source``, by its name. Templates are files that the core writes, not its own."""
    trees: dict[str, tuple[Path, ast.Module]] = {}
    for path in sorted((source / CORE).rglob("*.py")):
        if "templates" not in path.parts:
            trees[_name(path.relative_to(source))] = path, parse(path)
    return {
        name: Module(name, path, tree, frozenset(_imports(name, path, tree, trees)))
        for name, (path, tree) in trees.items()
    }


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def step(module: str) -> str:
    """The folder that a module lies in, or what stands for it in :data:`STAIRCASE`."""
    if module in FILES:
        return FILES[module]
    below = module.split(".")[1]
    return below if any(below in folders for folders in STAIRCASE) else GROUND


def on_staircase(core: Mapping[str, Module]) -> bool:
    """Whether every folder has a step."""
    folders = {name.split(".")[1] for name in core if name.count(".") > 1}
    return folders <= {folder for folders in STAIRCASE for folder in folders}


def climbs(core: Mapping[str, Module]) -> list[str]:
    """``importer -> imported`` for each import of a folder that is higher up, or beside the importer's on one step."""
    height = {folder: number for number, folders in enumerate(STAIRCASE) for folder in folders}
    return [
        f"{name} -> {imported}"
        for name, module in sorted(core.items())
        for imported in sorted(module.imports)
        if step(imported) != step(name) and height[step(imported)] >= height[step(name)]
    ]


def components(core: Mapping[str, Module]) -> list[list[str]]:
    """The groups of modules that all import each other, through others of the group; the largest first."""
    reached = {name: _reachable(name, core) for name in core}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) | {name} for name in core}
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))


def _reachable(name: str, core: Mapping[str, Module]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for imported in core[waiting.pop()].imports - found:
            found.add(imported)
            waiting.append(imported)
    return found


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, path: Path, tree: ast.Module, known: Iterable[str]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for imported in imported_names(tree, package):
        module = module_of(imported, known)
        if module and module != name:
            yield module


def module_of(imported: str, known: Iterable[str]) -> str:
    """The module of the core that an imported name is, or is from; "" where it is of another package."""
    while imported and imported not in known:
        imported = imported.rpartition(".")[0]
    return imported


def imported_names(tree: ast.AST, package: str = "") -> Iterator[str]:
    """The dotted name of everything that is imported, anywhere in a file: ``a.b.c`` for ``from a.b import c``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def private_imports(tree: ast.AST, core: Iterable[str]) -> list[str]:
    """The names that a file imports from modules of the core that are not public, and such modules themselves."""
    return [name for name in imported_names(tree) if module_of(name, core) not in ("", *PUBLIC)]


def hand_written_builds(tree: ast.AST) -> int:
    """How many classes that derive from another, as every kind does from ``Spec``, have a method ``build``."""
    return sum(
        isinstance(statement, ast.FunctionDef) and statement.name == "build"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.bases and node.name != "Spec"
        for statement in node.body
    )


def asserts_not_none(tree: ast.AST) -> int:
    """How many asserts hold an ``is not None``."""
    return sum(
        any(isinstance(operator, ast.IsNot) for part in ast.walk(node.test) for operator in getattr(part, "ops", []))
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    )


def participles(tree: ast.AST) -> Iterator[str]:
    """The functions whose name ends in a participle, such as ``_built``. Properties may, because they say what
    something is, and so may questions, such as ``is_sharded``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not any("property" in ast.unparse(one) for one in node.decorator_list):
            words = node.name.strip("_").split("_")
            participle = words[-1] in _PARTICIPLES or (words[-1].endswith("ed") and words[-1] not in _NOT_PARTICIPLES)
            if participle and words[0] not in ("is", "has") and words[-2:-1] not in (["if"], ["of"]):
                yield node.name


if __name__ == "__main__":
    for what, count in figures(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT).items():
        print(f"{'-' if count is None else format(count, ','):>7}  {what}")
