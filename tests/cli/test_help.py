"""The help of every command: summaries that fit, sentences that stand alone, and the glossary's words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from contralex.cli.app import app
from contralex.cli.plugin_commands import SUMMARY_LIMIT

Result = tuple[int, str, str]
# Words of our own that a reader would have to learn; docs, errors and help say it in the field's.
NOT_OURS = re.compile(
    r"\b(judg\w+|shares?|population|draws|whole|half|told|story|mistakes?|drift|trouble|outcomes?|surroundings"
    r"|companions|so many|places)\b",
    re.IGNORECASE,
)
# A sentence without its names of options, such as --allow-drift, and what is quoted.
NAMES = re.compile(r"`[^`]*`|--[\w-]+")


def commands(command: Any, context: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command with its words, of a plugin or ours."""
    yield name, command
    for each in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from commands(command.get_command(context, each), context, f"{name} {each}")


ROOT = typer.main.get_command(app)
ALL = dict(commands(ROOT, ROOT.make_context("contralex", [], resilient_parsing=True), "contralex"))


def is_a_sentence(text: str) -> bool:
    return bool(re.match(r"[A-Z]", text)) and text.endswith(".") and NOT_OURS.search(NAMES.sub("", text)) is None


def test_every_command_is_known_here() -> None:
    assert {"contralex train", "contralex eval knn", "contralex eval zero-shot", "contralex finetune"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_summary_is_a_sentence_that_fits(name: str) -> None:
    summary, *more = ALL[name].help.split("\n\n")
    assert is_a_sentence(summary), summary
    if name != "contralex":
        assert len(summary) <= SUMMARY_LIMIT and "\n" not in summary
    paragraphs = [" ".join(text.split()) for text in more if not text.startswith("\b")]
    assert [text for text in paragraphs if not re.match(r"[A-Z].*[.:]|.*NAME RUN", text)] == []
    assert [text for text in paragraphs if NOT_OURS.search(NAMES.sub("", text))] == []


@pytest.mark.parametrize("name", ALL)
def test_the_help_of_each_option_is_a_sentence(name: str) -> None:
    helps = {param.name: getattr(param, "help", None) or "" for param in ALL[name].params}
    assert {option: text for option, text in helps.items() if not is_a_sentence(text)} == {}


@pytest.mark.parametrize("text", ["So many for each.", "epochs for each.", "Epochs for each", "Judge a run.", ""])
def test_a_telegram_is_no_sentence(text: str) -> None:
    assert not is_a_sentence(text)


@pytest.mark.parametrize("words", [[], ["eval"], ["plugins"]])
def test_no_summary_is_cut_in_80_columns(
    words: list[str], call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(*words, "--help")
    usage, *lines = out.split("\n\n  Examples:")[0].splitlines()
    assert code == 0 and usage.startswith("Usage: ")
    assert [line for line in lines if "..." in line or len(line) > 80] == []


def test_commands_stand_in_groups(call: Callable[..., Result]) -> None:
    out = call("--help")[1]
    headings = re.findall(r"^(\w.*):$", out, re.MULTILINE)
    assert headings[:6] == [
        "Options",
        "Train",
        "Evaluate and use",
        "Look at recipes",
        "Plugins and your own parts",
        "This machine",
    ]
    assert set(headings[6:]) == {"From contralex-infomin", "From contralex-simclr"}
    assert "From contralex-clip:\n  zero-shot " in call("eval", "--help")[1]
    assert not re.search(r"^  (linear|zero-shot) ", out, re.MULTILINE)  # aliases


def test_the_list_of_commands_needs_no_import_of_a_plugin(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [call(*words, "--help")[1] for words in ((), ("eval",))]
    with monkeypatch.context() as patch:  # as where one plugin is a stranger's
        patch.setattr("contralex.cli.plugin_commands.list_commands", lambda: None)
        imported = [call(*words, "--help")[1] for words in ((), ("eval",))]
    for one, other in zip(known, imported, strict=True):
        assert sorted(one.splitlines()) == sorted(other.splitlines())
    script = "import sys; from contralex.__main__ import main; main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "contralex.cli.app" in modules
    assert not {"pydantic", "torch", "contralex_simclr"} & set(modules)


@pytest.mark.parametrize("name", ["linear", "zero-shot"])
def test_an_alias_is_the_same_command(name: str, call: Callable[..., Result]) -> None:
    alias, own = call(name, "--help")[1], call("eval", name, "--help")[1]
    assert alias == own.replace(f"Usage: contralex eval {name}", f"Usage: contralex {name}")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("contralex show moco-v2", ["moco-v2"]),
        ("contralex train moco-v", ["moco-v1", "moco-v2", "moco-v3", "moco-v3-vit"]),
        ("contralex train moco-v2 --preset dig", ["digits"]),
        ("contralex eval knn r", ["runs/mine"]),
        ("contralex fine", ["finetune"]),
    ],
)
def test_shells_complete_names_without_torch(line: str, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "spec.yaml").touch()
    code = "import sys; from contralex.__main__ import main; main(); assert 'torch' not in sys.modules"
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_CONTRALEX_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == found


@pytest.mark.parametrize("name", ALL)
def test_the_help_of_each_command_fits_in_80_columns(
    name: str, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(*name.split()[1:], "--help")
    assert code == 0
    assert [line for line in out.splitlines() if len(line) > 80] == []
