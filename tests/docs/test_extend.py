"""The pages for plugin authors: each example installs and keeps to the conformance kit."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import contralex.plugin
import contralex.testing
from contralex.cli import new
from contralex.cli.app import app
from contralex.cli.check import STATES
from contralex.cli.composing.parts import read_starts
from contralex.plugin import ContralexError
from contralex.plugins import hooks
from contralex.plugins.registry import registry
from contralex.recipes.layers import resolve
from contralex.testing import Case, cases, kit
from contralex.training.run import train

ROOT = Path(__file__).resolve().parents[2]
EXTEND = ROOT / "docs" / "extend"
PAGES = sorted(EXTEND.glob("*.md"))
LONGEST = 40  # lines of an example, of all its files together; blank ones do not count
SLOW = "two_equal_one"  # starts two processes

_FILE = re.compile(r"^```(\w+) file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^ *```python.*?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_NEW = re.compile(r"^\$ contralex new (\S+) --as (\S+)$", re.MULTILINE)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
_COUNTS = re.compile(r"^(contralex-\S+): ((?:\d+ [a-z ]+(?:, )?)+)$", re.MULTILINE)
_WORD = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Example:
    """A plugin that a page writes out: each file's path in it, and what it holds. ``start``: of ``contralex new``."""

    page: str
    name: str
    files: dict[str, str]
    start: str = ""

    def __str__(self) -> str:
        return f"{self.page}: {self.distribution}"

    @property
    def distribution(self) -> str:
        return f"contralex-{self.name}"

    @property
    def package(self) -> str:
        return f"contralex_{self.name}"


def examples() -> Iterator[Example]:
    for page in PAGES:
        text = page.read_text("utf-8")
        starts = dict(_NEW.findall(text))
        found: dict[str, dict[str, str]] = {}
        for _, path, content in _FILE.findall(text):
            if path.startswith("src/"):  # a slot's page shows one package
                path = f"{path.split('/')[1].replace('_', '-')}/{path}"
            distribution, _, inside = path.partition("/")
            found.setdefault(distribution.removeprefix("contralex-"), {})[inside] = content
        for name, files in found.items():
            yield Example(page.stem, name, files, starts.get(name, ""))


EXAMPLES = list(examples())
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=str)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
Install = Callable[[Example], None]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, install: Install) -> None:
    """The tutorial's packages beside the core, as its reader has them: other plugins would change what is said."""
    tutorial = [example for example in EXAMPLES if example.page == "tutorial"]
    monkeypatch.setenv("CONTRALEX_PLUGINS", ",".join(example.distribution for example in tutorial))
    for example in tutorial:
        install(example)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts an example on the path, with the record that pip would leave."""
    packages: list[str] = []

    def put(example: Example) -> None:
        folder = tmp_path / example.distribution
        if example.start:
            new.write(example.name, read_starts(example.start, example.name), folder)
        for path, content in example.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content, "utf-8")
        (folder / "src" / example.package / "__init__.py").touch()
        info = folder / "src" / f"{example.package}-0.1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {example.distribution}\nVersion: 0.1.0\n"
        (info / "METADATA").write_text(f"{metadata}Requires-Dist: contralex>=0.1,<0.2\n", "utf-8")
        (info / "entry_points.txt").write_text(f"[contralex]\n{example.name} = {example.package}.plugin\n", "utf-8")
        monkeypatch.syspath_prepend(folder / "src")
        packages.append(example.package)
        registry.cache_clear()

    yield put
    registry.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def bad(chosen: list[Case]) -> list[str]:
    outcomes = [case.run() for case in chosen]
    return [f"{outcome.id}: {outcome.reason}" for outcome in outcomes if outcome.bad]


@each_example
def test_an_example_keeps_to_the_kit(example: Example, install: Install) -> None:
    """Each check once, in the first method that the kit makes."""
    install(example)
    first = {case.id.partition("[")[0]: case for case in reversed(cases(example.distribution))}
    found = bad([case for name, case in first.items() if name != SLOW])
    assert found == []


@pytest.mark.slow
@each_example
def test_an_example_keeps_to_the_whole_kit(example: Example, install: Install) -> None:
    install(example)
    found = bad(cases(example.distribution))
    assert found == []


def test_the_tests_that_the_tutorial_writes_pass(install: Install) -> None:
    written = [(e, code) for e in EXAMPLES for path, code in e.files.items() if path.startswith("tests/")]
    assert written
    for example, code in written:
        install(example)
        names: dict[str, Any] = {}
        exec(code, names)
        for name in [name for name in names if name.startswith("test_")]:
            names[name]()


def printed() -> list[tuple[str, str]]:
    """The commands of the tutorial, each with its output there."""
    text = (EXTEND / "tutorial.md").read_text("utf-8")
    return [found for block in _CONSOLE.findall(text) for found in _COMMAND.findall(block) if found[1].strip()]


QUICK = [found for found in printed() if found[0].startswith(("contralex new", "contralex plugins", "contralex show"))]


@pytest.mark.parametrize(("command", "output"), QUICK, ids=[command for command, _ in QUICK])
def test_a_command_prints_what_the_tutorial_says(
    command: str, output: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``...`` stands for any lines, and how lines are broken does not matter."""
    if not command.startswith("contralex new"):  # which makes what the others find installed
        request.getfixturevalue("alone")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    said = done.output + (f"Error: {done.exception}" if isinstance(done.exception, ContralexError) else "")
    rest = " ".join(said.split())
    for part in re.split(r"^\.\.\.$", output, flags=re.MULTILINE):
        if not (wanted := " ".join(part.split())):
            continue
        assert wanted in rest, said
        rest = rest.partition(wanted)[2]


def counted() -> list[tuple[str, str, str]]:
    """Of each ``contralex check`` in the tutorial: the distribution, what ``--only`` says, and the counts below it."""
    checks = [(shlex.split(command), _COUNTS.search(output)) for command, output in printed()]
    return [
        (words[2], words[words.index("--only") + 1] if "--only" in words else "", counts[2])
        for words, counts in checks
        if words[:2] == ["contralex", "check"] and counts
    ]


@pytest.mark.usefixtures("alone")
def test_the_tutorial_counts_the_cases_of_the_kit() -> None:
    assert len(counted()) == 3
    for distribution, only, counts in counted():
        total = sum(int(number) for number in re.findall(r"\d+", counts))
        there = [case for case in cases(distribution) if only in case.id]
        assert (distribution, only, total) == (distribution, only, len(there))


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_the_tutorial_counts_what_passes() -> None:
    for distribution, only, counts in counted():
        if "failed" not in counts:  # what fails there is a mistake that the reader makes on purpose
            states = Counter(case.run().state for case in cases(distribution) if only in case.id)
            assert ", ".join(f"{states[state]} {state}" for state in STATES if states[state]) == counts


@each_example
def test_an_example_is_short(example: Example) -> None:
    lines = [line for text in example.files.values() for line in text.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 120
    if not example.start:  # the tutorial's are shown file by file
        assert len(lines) <= LONGEST


def test_every_slot_has_an_example() -> None:
    slots = {"encoders", "key-encoders", "negatives", "targets", "losses", "views", "data"}
    assert {example.page for example in EXAMPLES} == {
        *slots,
        "backbones",
        "commands",
        "recipes",
        "life-cycle",
        "look-ups",
        "tutorial",
    }


def test_the_life_cycle_example_logs_and_stops(install: Install, tmp_path: Path) -> None:
    example = next(example for example in EXAMPLES if example.page == "life-cycle")
    install(example)
    tiny = ["method.encoder.backbone={kind: conv, widths: [8], strides: [4]}", "train.batch_size=64", "eval.knn=null"]
    short = ["train.max_steps=4", "train.log_every=1", "train.precision=fp32", "train.workers=0"]
    resolved = resolve("simclr-v1", preset="digits", sets=[*tiny, *short, f"plugins=[{example.distribution}]"])
    train(resolved, tmp_path / "run")
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [0 < line["spread"] < 1.5 for line in logged] == [True] * 4


def test_the_state_of_the_look_ups_example_follows_the_queries(install: Install, tmp_path: Path) -> None:
    install(next(example for example in EXAMPLES if example.name == "away"))
    page = (EXTEND / "look-ups.md").read_text("utf-8")
    command = next(line for line in page.replace("\\\n", "").splitlines() if line.startswith("contralex train moco-v2"))
    _, _, recipe, _, preset, _, added = shlex.split(command)
    small = ["method.encoder.backbone={kind: conv, widths: [8], strides: [4]}", "train.batch_size=64", "eval.knn=null"]
    short = ["train.max_steps=2", "train.log_every=1", "train.precision=fp32", "train.workers=0"]
    train(resolve(recipe, preset=preset, sets=[added, *small, *short]), tmp_path / "run")
    first, second = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines())
    assert 0 < first["away.loss"] < second["away.loss"]  # the mean starts at zero and moves to where the queries lie


@each_page
def test_python_on_a_page_can_be_read(page: Path) -> None:
    for block in _PYTHON.findall(page.read_text("utf-8")):
        ast.parse(textwrap.dedent(block))


def test_the_map_names_every_hook_and_every_check() -> None:
    text = (EXTEND / "README.md").read_text("utf-8") + (EXTEND / "life-cycle.md").read_text("utf-8")
    named = {word.partition("(")[0] for word in _WORD.findall(text)}
    checks = [*kit.PLUGIN, *kit.HOOKS, *kit.KIND, *kit.VIEWS, *kit.DATA, *kit.BACKBONE, *kit.TRIAL, *kit.RECIPE]
    wanted = {name for name in vars(hooks) if name.startswith("contralex_")} | {check.__name__ for check in checks}
    assert wanted - named == set()


def test_the_policy_names_what_is_public() -> None:
    named = set(_WORD.findall((EXTEND / "compatibility.md").read_text("utf-8")))
    assert {*contralex.plugin.__all__, *contralex.testing.__all__} - named == set()


def members(part: type) -> set[str]:
    """What a class of the author's door has of its own that an author may write or use."""
    own = {*vars(part), *part.__annotations__}
    return {name for name in own if not name.startswith("_") and name not in FOR_THE_ENGINE}


# What the engine or pydantic alone asks of a part.
FOR_THE_ENGINE = {"has_same_sides", "shares_draws", "on_accelerator", "skip_all", "model_config"}
BASES = (
    "Spec",
    "Run",
    "Encoder",
    "KeyEncoder",
    "NegativeSource",
    "TargetGenerator",
    "Loss",
    "Views",
    "Source",
    "Split",
)


@pytest.mark.parametrize("name", BASES)
def test_the_pages_name_every_member_of_what_an_author_subclasses(name: str) -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    code = [*_PYTHON.findall(pages), *_WORD.findall(pages)]
    words = {word for text in code for word in re.findall(r"\w+", text)}
    assert members(getattr(contralex.plugin, name)) - words == set()
