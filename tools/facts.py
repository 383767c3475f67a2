"""Facts that stand in several places, each written from one source.

``python tools/facts.py`` writes them; ``python tools/facts.py --check`` names the files that are out of date
and exits with 1. The sources are

* the version in ``core/pyproject.toml``: every first-party distribution has it, and asks for that core;
* what the folders ``plugins/*/`` offer: install hints (``known.json``), the tables of methods, and how many the README
  counts;
* the author's door, ``contralex.plugin``: the table of its names in ``docs/extend/compatibility.md``;
* the resolved recipes: a picture of each, and the page that shows them (``docs/gallery.md``);
* ``LICENSE``: each distribution's wheel carries a copy, and so does each package that ``contralex new`` writes.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from pathlib import Path

from contralex import plugin as door
from contralex.errors import ContralexError
from contralex.plugins.hooks import METHOD_SLOTS, SLOTS
from contralex.plugins.registry import Plugin, Registry

ROOT = Path(__file__).resolve().parent.parent
FIX = "make facts"
GALLERY = """# Every method in the five slots

`contralex explain RECIPE` says the same on the terminal, and `--svg FILE` draws it. An orange arrow carries a gradient
back, a grey one does not; what the optimiser moves has an orange edge. Written by tools/facts.py.
"""
TABLE = re.compile(r"(<!-- methods: written by tools/facts\.py -->\n).*?(<!-- /methods -->)", re.DOTALL)
NAMES = re.compile(r"(<!-- names: written by tools/facts\.py -->\n).*?(<!-- /names -->)", re.DOTALL)
COUNTS = re.compile(r"\d+ recipes in \d+ packages")
# What the author's door has from each folder of the core; from all others, the last.
NAMED_FOR = {
    "lookup": "parts, and the values that flow",
    "plugins": "specs and hooks",
    "recipes": "fields, and recipes as they are read",
    "data": "data",
    "kinds": "the core's kinds, to build on",
    "": "messages, files, evaluation and commands",
}


def derived() -> dict[Path, str]:
    """Each derived file, and what it should hold."""
    plugins = first_party()
    tables = {ROOT / "README.md": packages_table(plugins), ROOT / "docs/methods.md": methods_table(plugins)}
    licence = (ROOT / "LICENSE").read_text("utf-8")
    files = {ROOT / "core/src/contralex/known.json": known_json(plugins)}
    for folder in [ROOT / "core", ROOT / "core/src/contralex/cli/templates/package", *plugins]:
        files[folder / "LICENSE"] = licence
    for folder in plugins:
        files[folder / "pyproject.toml"] = lockstep(folder / "pyproject.toml", core_version())
    for page, table in tables.items():
        up = "../" * (len(page.relative_to(ROOT).parts) - 1)
        rows = table.replace("](plugins/", f"]({up}plugins/")
        parts = TABLE.split(page.read_text("utf-8"))
        if len(parts) != 4:  # before, the opening comment, the closing comment, after
            raise ContralexError(f"{page.relative_to(ROOT)} needs one pair of the comments around the table of methods")
        files[page] = "".join([*parts[:2], rows, *parts[2:]])
    readme = ROOT / "README.md"
    files[readme], found = COUNTS.subn(counts(plugins), files[readme])
    if found != 1:
        raise ContralexError(f"README.md needs the words '{counts(plugins)}' once")
    policy = ROOT / "docs/extend/compatibility.md"
    files[policy] = NAMES.sub(lambda found: found[1] + names_table() + found[2], policy.read_text("utf-8"))
    files |= pictures(plugins)
    return files


def counts(plugins: dict[Path, Plugin]) -> str:
    return f"{sum(len(plugin.recipes) for plugin in plugins.values())} recipes in {len(plugins)} packages"


def names_table() -> str:
    """The names of ``contralex.plugin``, by what they are for."""
    rows: dict[str, list[str]] = {folder: [] for folder in NAMED_FOR}
    for name in sorted(door.__all__, key=str.lower):
        folder = (door._MODULE | door._MODULES)[name].split(".")[1]
        rows[folder if folder in rows else ""].append(f"`{name}`")
    lines = [f"| {NAMED_FOR[folder]} | {', '.join(names)} |" for folder, names in rows.items()]
    return "\n".join(["| for | names |", "|---|---|", *lines]) + "\n"


def pictures(plugins: dict[Path, Plugin]) -> dict[Path, str]:
    """Each recipe in the five slots, drawn, and the page that shows them."""
    from contralex.explaining import explained
    from contralex.explaining.picture import svg
    from contralex.recipes.layers import resolve

    methods = {name: explained(resolve(name)) for plugin in plugins.values() for name in sorted(plugin.recipes)}
    folder = ROOT / "docs/figures"
    files = {folder / f"{name}.svg": svg(method) for name, method in methods.items()}
    gallery = "".join(
        f"## {name}\n\n{method.summary}.\n\n![{name}](figures/{name}.svg)\n\n" for name, method in methods.items()
    )
    files[ROOT / "docs/gallery.md"] = f"{GALLERY}\n{gallery.rstrip()}\n"
    return files


def first_party() -> dict[Path, Plugin]:
    """Each folder of ``plugins/``, with what the registry finds in it. All must be installed from this clone."""
    registry = Registry()  # whatever CONTRALEX_PLUGINS leaves out
    plugins = {}
    for project in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        name = tomllib.loads(project.read_text("utf-8"))["project"]["name"]
        plugin = registry.plugins.get(name)
        if plugin is None:
            raise ContralexError(f"{name} is not installed; run: {sys.executable} -m pip install -e {project.parent}")
        if not plugin.usable:
            raise ContralexError(f"{name} is {plugin.state}: {plugin.reason}")
        module = Path(str(getattr(plugin.module, "__file__", "")))
        if not module.is_relative_to(project.parent):
            raise ContralexError(f"{name} is installed from {module.parent}, and not from {project.parent}")
        plugins[project.parent] = plugin
    return plugins


def known_json(plugins: dict[Path, Plugin]) -> str:
    kinds: dict[str, dict[str, str]] = {}
    for slot in SLOTS:
        found = {spec.kind_name(): plugin.name for plugin in plugins.values() for spec in plugin.kinds[slot]}
        if found:
            kinds[slot] = dict(sorted(found.items()))
    recipes = {recipe: plugin.name for plugin in plugins.values() for recipe in plugin.recipes}
    commands = {command: plugin.name for plugin in plugins.values() for command in plugin.commands}
    summaries = {
        command: (inspect.getdoc(function) or "").partition("\n\n")[0]
        for plugin in plugins.values()
        for command, function in plugin.commands.items()
    }
    facts = {
        "distributions": sorted(plugin.name for plugin in plugins.values()),
        "kinds": kinds,
        "recipes": dict(sorted(recipes.items())),
        "commands": dict(sorted(commands.items())),
        "summaries": dict(sorted(summaries.items())),
    }
    return json.dumps(facts, indent=2) + "\n"


def core_version() -> str:
    with (ROOT / "core/pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def lockstep(project: Path, version: str) -> str:
    """The project's text with the core's version, and bounds that admit the core's minor release alone."""
    major, minor = (int(part) for part in version.split(".")[:2])
    bounds = f"contralex>={major}.{minor},<{major}.{minor + 1}"
    text = project.read_text("utf-8")
    for pattern, line in (
        (r'(?m)^version = ".*"$', f'version = "{version}"'),
        (r'"contralex>=[^"]*"', f'"{bounds}"'),
    ):
        text, count = re.subn(pattern, line, text)
        if count != 1:
            raise ContralexError(f"{project.relative_to(ROOT)} needs exactly one line like {line}")
    return text


def packages_table(plugins: dict[Path, Plugin]) -> str:
    """A row for each package: its methods, its recipes, and its idea, as its description says them."""
    lines = ["| methods | idea | recipes | package |", "|---|---|---|---|"]
    for folder, plugin in plugins.items():
        description = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["description"]
        methods, _, idea = description.partition(" for contralex: ")
        if not idea:
            raise ContralexError(f"{folder.name}: its description is written like 'METHOD for contralex: its idea.'")
        recipes = ", ".join(f"`{recipe}`" for recipe in sorted(plugin.recipes))
        card = f"[{plugin.name}]({folder.relative_to(ROOT).as_posix()})"
        lines.append(f"| {methods} | {idea[0].upper()}{idea[1:].removesuffix('.')} | {recipes} | {card} |")
    return "\n".join(["", *lines, "", ""])


def methods_table(plugins: dict[Path, Plugin]) -> str:
    """A row for each recipe: which kinds stand in the five slots."""
    from contralex.recipes.layers import resolve

    lines = [f"| recipe | package | {' | '.join(METHOD_SLOTS)} |", "|---" * (len(METHOD_SLOTS) + 2) + "|"]
    for folder, plugin in plugins.items():
        for recipe in sorted(plugin.recipes):
            method = resolve(recipe).run.method
            kinds = (f"`{getattr(method, slot).kind_name()}`" for slot in METHOD_SLOTS)
            card = f"[{plugin.name}]({folder.relative_to(ROOT).as_posix()})"
            lines.append(f"| `{recipe}` | {card} | {' | '.join(kinds)} |")
    return "\n".join(["", *lines, "", ""])


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__)
        return 2
    try:
        files = derived()
    except ContralexError as error:
        print(f"tools/facts.py: {error}", file=sys.stderr)
        return 1
    old = [path for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in old:
        if arguments:
            print(f"{path.relative_to(ROOT)} is out of date; run: {FIX}", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(files[path], "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if arguments and old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
