"""``contralex plugins`` and ``plugins show`` as a user runs them, with plugins in every state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from contralex.plugins.kind_facts import kind_facts
from contralex.plugins.registry import registry

LOSS = """
from typing import Literal
from contralex.plugin import Spec, hookimpl

class Magic(Spec):
    \"\"\"A loss that does magic.

    More of it.
    \"\"\"

    kind: Literal["{kind}"] = "{kind}"
    source = "Houdini, 1903"

@hookimpl
def contralex_losses():
    return [Magic]

@hookimpl
def contralex_step_end(run, metrics):
    pass
"""
TINY = [
    "method.encoder.backbone={kind: conv, widths: [8], strides: [4]}",
    "train.epochs=1",
    "train.batch_size=512",
    "train.precision=fp32",
    "train.workers=0",
    "eval.knn=null",
]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of ten distributions: three work, and seven fail, each in its own way."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in ("good-one", "good-two", "good-three"):
        distribution(folder, name, LOSS.format(kind=name))
    distribution(folder, "raises", "raise RuntimeError('no luck today')")
    distribution(folder, "leaves", "import sys; sys.exit('bye')")
    distribution(folder, "rival", LOSS.format(kind="cosine"))
    distribution(folder, "too-old", "raise RuntimeError('imported')", requires="contralex<0.0.1")
    distribution(folder, "stale", None)
    distribution(folder, "malformed", "", entry="mal formed")
    (distribution(folder, "unreadable", "") / "METADATA").write_bytes(b"Name: \xff\n")
    return folder


REASONS = {
    "raises": ("broken", "importing raises raised RuntimeError: no luck today"),
    "leaves": ("broken", "importing leaves raised SystemExit: bye"),
    "rival": ("conflict", "contralex and rival both offer loss kind 'cosine'; block one with CONTRALEX_PLUGINS=-rival"),
    "too-old": ("incompatible", "it asks for contralex<0.0.1, and this is contralex "),
    "stale": ("broken", "its module stale is gone"),
    "malformed": ("broken", "its entry point 'malformed = mal formed' is malformed"),
    "unreadable": ("broken", "cannot be read (UnicodeDecodeError"),
}


def distribution(folder: Path, name: str, code: str | None, *, requires: str = "contralex", entry: str = "") -> Path:
    module = name.replace("-", "_")
    if code is not None:
        (folder / f"{module}.py").write_text(textwrap.dedent(code), "utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: {requires}\n")
    (info / "entry_points.txt").write_text(f"[contralex]\n{name} = {entry or module}\n")
    return info


def contralex(site: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), **more}
    command = [sys.executable, "-m", "contralex", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_ten_plugins_each_in_its_state(site: Path) -> None:
    done = contralex(site, "plugins")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row[0]: row for row in (line.split("\t") for line in done.stdout.splitlines())}
    for name in ("good-one", "good-two", "good-three"):
        assert rows[name][2:] == ["ready", f"loss: {name}; hooks: step_end"]
    for name, (state, reason) in REASONS.items():
        assert rows[name][2] == state
        assert reason in rows[name][3]


def test_what_does_not_need_them_works(site: Path, tmp_path: Path) -> None:
    done = contralex(site, "show", "moco-v2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "name: moco-v2\n" in done.stdout
    sets = [f"--set={text}" for text in TINY]
    done = contralex(site, "train", "moco-v2", "--preset=digits", f"--out={tmp_path / 'run'}", *sets)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 2


def test_what_needs_one_says_why_not(site: Path) -> None:
    done = contralex(site, "show", "moco-v2", "--set=method.loss={kind: rabbit}")
    assert (done.returncode, "no loss of kind 'rabbit' is installed" in done.stderr) == (2, True)
    done = contralex(site, "plugins", "--json", CONTRALEX_PLUGINS="-rival,-nobody")
    found = json.loads(done.stdout)
    assert found["unmatched"] == ["nobody"]
    (rival,) = (plugin for plugin in found["plugins"] if plugin["name"] == "rival")
    assert (rival["state"], rival["reason"]) == ("blocked", "left out by CONTRALEX_PLUGINS=-rival,-nobody")


@pytest.mark.parametrize("name", REASONS)
def test_show_of_one_that_does_not_work(site: Path, name: str) -> None:
    found = json.loads(contralex(site, "plugins", "show", name, "--json").stdout)
    state, reason = REASONS[name]
    assert (found["name"], found["state"]) == (name, state)
    assert reason in found["reason"]
    assert (found["location"], found["editable"]) == (str(site), False)


def test_show_of_one_that_works(site: Path) -> None:
    found = json.loads(contralex(site, "plugins", "show", "Good_One", "--json").stdout)
    assert found == {
        "name": "good-one",
        "version": "1.0",
        "state": "ready",
        "reason": "",
        "asks_for": "",
        "location": str(site),
        "editable": False,
        "entry_point": "good-one = good_one",
        "kinds": {"loss": [{"kind": "good-one", "summary": "A loss that does magic.", "source": "Houdini, 1903"}]},
        "recipes": [],
        "commands": [],
        "hooks": ["contralex_losses", "contralex_step_end"],
    }
    lines = contralex(site, "plugins", "show", "good-one").stdout.splitlines()
    assert "editable\tno" in lines
    assert lines[-1] == "loss\tgood-one\tA loss that does magic.\tHoudini, 1903"
    assert "asks for\tcontralex<0.0.1" in contralex(site, "plugins", "show", "too-old").stdout


def test_show_of_the_core_and_of_nothing(site: Path) -> None:
    core = json.loads(contralex(site, "plugins", "show", "contralex", "--json").stdout)
    assert "image" in {kind["kind"] for kind in core["kinds"]["encoder"]}
    done = contralex(site, "plugins", "show", "raise")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: plugins show: no plugin 'raise' is installed; did you mean raises?\n"
    assert "did you mean contralex-moco?" in contralex(site, "plugins", "show", "moco").stderr


def test_show_of_a_kind(site: Path) -> None:
    found = json.loads(contralex(site, "plugins", "show", "--kind", "negatives.memory_bank", "--json").stdout)
    assert (found["kind"], found["slot"], found["needs"]) == (
        "memory_bank",
        "negatives",
        ["of encoder: one query a view"],
    )
    assert "remembered" in found["gives"]
    fields = {field["field"]: field for field in found["fields"]}
    assert (fields["draws"]["type"], fields["draws"]["default"]) == ("whole number", "required")
    assert fields["draws"]["bounds"].startswith("≥ 0")
    assert fields["placement"]["type"] == "replicated | sharded"
    lines = contralex(site, "plugins", "show", "--kind", "views.crops").stdout.splitlines()
    assert any(line.startswith("groups.NAME.augment.crop.size\twhole number\t> 0") for line in lines)
    assert "needs\tof data: images" in lines
    inner = contralex(site, "plugins", "show", "--kind", "method.loss.good-one").stdout
    assert "A loss that does magic." in inner


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--kind", "targts.key_vector"], "write it as SLOT.KIND, such as targets.key_vector; did you mean targets?"),
        (["--kind", "targets.key_vectr"], "did you mean 'key_vector'?"),
        (["--kind", "targets"], "write it as SLOT.KIND"),
        ([], "name one plugin, or one kind with --kind"),
        (["contralex", "--kind", "loss.info_nce"], "name one plugin, or one kind with --kind"),
    ],
)
def test_show_refuses(site: Path, words: list[str], sentence: str) -> None:
    done = contralex(site, "plugins", "show", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


def test_every_kind_can_be_shown() -> None:
    known = registry()
    for plugin in known.plugins.values():
        for slot, specs in plugin.kinds.items():
            for spec in specs:
                facts = kind_facts(slot, spec)
                assert [field["field"] for field in facts["fields"] if not field["type"]] == []
