"""Every page: its commands are ones that the command line takes, its links lead somewhere, its lists are complete."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from contralex.cli.app import app
from contralex.plugins.registry import registry
from contralex.recipes.layers import resolve
from contralex.recipes.run_spec import RunSpec, TrainSpec
from tests.packages import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "core/README.md")),
    *sorted(path for folder in ("docs", "benchmarks") for path in (ROOT / folder).rglob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
_BLOCK = re.compile(r"^ *```[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"^(?:\$ )?(?:torchrun .*-m |accelerate launch .*-m )?contralex (.+)", re.MULTILINE)
_BESIDE = re.compile(r"(  +| > )[^'\"]*$")  # what stands beside a command, and where its output goes
# Of packages that the reader writes: a recipe or command by a word, or a kind within a setting.
_TO_BE_WRITTEN = re.compile(r"mine|hard|consistent|spread|.*(kind: hard|away_from_mean).*")

COMMANDS = typer.main.get_command(app)
CONTEXT = COMMANDS.make_context("contralex", [], resilient_parsing=True)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command in the page's blocks, but for those that only show what may be said: [--out DIR]."""
    for block in _BLOCK.findall(page.read_text("utf-8")):
        text = re.sub(r"\\\n *", "", block)
        for found in _COMMAND.finditer(text):
            words = _split(found[1], text[found.end() :])
            if not any(word.startswith("[") or word == "..." for word in words):
                yield words


def _split(line: str, below: str) -> list[str]:
    """The words of a line; a quote that is open at its end goes on below."""
    try:
        return shlex.split(_BESIDE.sub("", line), comments=True)
    except ValueError:
        first, _, rest = below.removeprefix("\n").partition("\n")
        return _split(f"{line} {first.strip()}", rest)


def find(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the other words."""
    command: Any = COMMANDS
    rest = list(words)
    while hasattr(command, "list_commands") and rest and re.match(r"[a-z]", rest[0]):
        name = rest.pop(0)
        command = command.get_command(CONTEXT, name)
        assert command is not None, f"there is no command {' '.join(words)}"
    return command, rest


def read(words: list[str]) -> Any:
    """The context that a command line makes, without a call of the command. Raises where it does not take the words."""
    command, rest = find(words)
    return command.make_context(command.name, rest) if rest or not hasattr(command, "list_commands") else CONTEXT


def unknown_options(words: list[str]) -> list[str]:
    command, rest = find(words)
    known = {"--help", *(name for option in command.params for name in (*option.opts, *option.secondary_opts))}
    return [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]


@each_page
def test_the_commands_of_a_page_are_ones_that_there_are(page: Path) -> None:
    for words in commands(page):
        if words[0] != "new" and any(_TO_BE_WRITTEN.fullmatch(word) for word in words):
            continue
        options = read(words).params
        named = [*options.get("methods", ()), *(options.get(name) for name in ("recipe", "a", "b"))]
        named = [name for name in named if name and name != "all" and not name.endswith(".yaml")]
        assert set(named) <= {*registry().recipes()}, words
        if named and words[0] in ("train", "show", "explain", "views", "why"):
            data = options.get("data") if options.get("data") in registry().kinds("data") else None
            resolve(named[0], preset=options.get("preset"), data=data, sets=options.get("sets"))


def help_texts(command: Any, context: Any) -> Iterator[str]:
    yield f"{command.help}\n{command.epilog}"
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from help_texts(command.get_command(context, name), context)


def test_the_examples_of_the_help_are_commands_that_there_are() -> None:
    texts = "\n".join(help_texts(COMMANDS, CONTEXT))
    examples = re.findall(r"^ *contralex (.+)$", texts, re.MULTILINE)
    assert len(examples) > 50
    for example in examples:
        read(_split(example, ""))


@each_page
def test_what_a_sentence_says_of_a_command_is_so(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text("utf-8"))
    for found in re.findall(r"`contralex ([a-z][^`]*)`", text):
        assert unknown_options(found.split()) == [], found


@pytest.mark.parametrize("words", [["plugins", "list"], ["train", "moco-v2", "--epoch", "3"], ["eval", "knn"]])
def test_a_command_that_there_is_not_is_found(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"no command|[Nn]o such|[Mm]issing"):
        read(words)


def links(page: Path) -> list[str]:
    return [link for link in _LINK.findall(_BLOCK.sub("", page.read_text("utf-8"))) if "://" not in link]


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in links(page) if not _leads_somewhere(page, link)] == []


def test_a_page_leads_to_every_page_but_the_two_that_are_met_first() -> None:
    found = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)}
    assert [page for page in PAGES if not {page, page.parent} & found] == [ROOT / "README.md", ROOT / "core/README.md"]


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", target.read_text("utf-8")), re.MULTILINE)
    return anchor in [re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


def test_the_page_about_recipes_names_every_field_of_the_root_and_of_training() -> None:
    text = (ROOT / "docs/recipes.md").read_text("utf-8")
    names = {field.alias or name for spec in (RunSpec, TrainSpec) for name, field in spec.model_fields.items()}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_the_map_names_every_word_of_the_cores_kinds() -> None:
    text = (ROOT / "docs/extend/README.md").read_text("utf-8")
    section = text.partition("### What parts need and give\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", section, re.MULTILINE))
    for slot in ("data", "views", "encoder", "backbone", "key_encoder", "negatives", "targets"):
        specs = [registry().find(slot, kind) for kind in registry().kinds(slot)]
        words = {word for spec in specs if spec and spec.__module__.startswith("contralex.") for word in spec.gives}
        named = set(re.findall(r"`([^`]+)`", rows["encoder.backbone" if slot == "backbone" else slot]))
        assert words - named == set(), slot


def test_the_core_s_page_names_every_extra() -> None:
    page, project = ((ROOT / "core" / name).read_text("utf-8") for name in ("README.md", "pyproject.toml"))
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    names = re.findall(r"^(\w+) =", extras, re.MULTILINE)
    assert len(names) > 5
    assert [name for name in names if f"`{name}`" not in page] == []
