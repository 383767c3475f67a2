"""What a command prints to streams that lack characters, are full or closed; and paths as users write them."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer

from contralex import resolve
from contralex.api.settings import set_texts
from contralex.cli.options import path
from contralex.comparison.runs import _sentence
from contralex.comparison.table import columns
from contralex.files import write_text
from contralex.kinds.datasets.specs import ImageFolderSpec, LabelledSpec
from contralex.plugin import ContralexError
from contralex.plugins.registry import registry
from contralex.training import failures

Result = tuple[int, str, str]
CONTRALEX = [sys.executable, "-m", "contralex"]


def contralex(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CONTRALEX, *words], text=True, stderr=subprocess.PIPE, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_characters_that_an_encoding_lacks_are_replaced(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    code = "from contralex import streams; streams.accept_any_text(); print('1 → 2 · café \\udcff ☃')"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    said = done.stdout.decode(encoding)
    assert done.returncode == 0 and done.stderr == b""
    assert said.startswith("1 -> 2 ") and said.rstrip().endswith("\\udcff \\u2603")
    assert ("café" in said) == (encoding != "ascii")


def test_json_stays_json_where_the_encoding_lacks_characters() -> None:
    code = (
        "from contralex import streams; from contralex.cli import options; streams.accept_any_text(); "
        "options.print_json({'a': 'é→'})"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == {"a": "é→"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["methods"], ["show", "moco-v2"]])
def test_a_full_disk_behind_the_output_is_one_sentence(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = contralex(*words, stdout=full)
    assert done.returncode == 1
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_is_written_to_and_not_replaced() -> None:
    device = Path("/dev/full")
    with pytest.raises(OSError) as raised:
        write_text(device, "text")
    assert raised.value.filename == str(device) and device.is_char_device()
    done = contralex("schema", "--out", "/dev/full", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: --out /dev/full: the file cannot be written (No space left on device)\n"


def test_a_reader_that_has_seen_enough_ends_a_command_in_silence() -> None:
    writer = subprocess.Popen([*CONTRALEX, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == ""
    assert writer.wait() in (0, 1)  # 0 where all had been written before the reader went
    writer.stderr.close()


def test_a_file_that_is_written_may_have_the_longest_name(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250 + ".json")
    write_text(target, "text")
    assert target.read_text() == "text" and list(tmp_path.iterdir()) == [target]


# Paths

PATHS = [
    ["train", "moco-v2", "--out"],
    ["finetune", "RUN", "--out"],
    ["finetune"],
    ["distill", "RUN", "--out"],
    ["distill"],
    ["compare", "moco-v2", "--out"],
    ["eval", "knn"],
    ["linear"],
    ["eval", "linear"],
    ["eval", "classify"],
    ["eval", "zero-shot"],
    ["inspect"],
    ["doctor"],
    ["explain", "moco-v2", "--svg"],
    ["schema", "--out"],
    ["new", "my-own", "--out"],
    ["zero-shot"],
    ["zero-shot", "RUN", "--classes"],
    ["zero-shot", "RUN", "--templates"],
    ["view-information", "moco-v2", "--out"],
]
NAMES = [["train"], ["show"], ["train", "moco-v2", "--data"], ["eval", "knn", ".", "--data"]]


@pytest.mark.parametrize("words", [*PATHS, *NAMES], ids=" ".join)
@pytest.mark.parametrize("given", ["x" * 300, "y/" + "ü" * 200, ""], ids=["long", "long in UTF-8", "empty"])
def test_a_path_that_cannot_be_is_a_sentence(words: list[str], given: str, call: Callable[..., Result]) -> None:
    code, out, err = call(*words, given)
    assert (code, out) == (2, "")
    assert "Traceback" not in err and "Error: " in err and len(err) < 1000


def test_a_home_is_spelled_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path("~/x") == tmp_path / "x"
    for given in ("", "  ", "a\0b", "x" * 256):
        with pytest.raises(typer.BadParameter):
            path(given)
    assert path("x" * 255) == Path("x" * 255)


def test_a_schema_for_home_goes_there(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call("schema", "--out=~/here.json")[0] == 0
    assert json.loads((tmp_path / "here.json").read_text("utf-8"))


# Data that are not there


@pytest.mark.parametrize(
    ("recipe", "ways"),
    [
        ("moco-v2", ["--data FOLDER", "--preset digits", "--set data.root=FOLDER"]),
        ("clip", ["--data FOLDER", "--preset digits", "--set data.root=FOLDER"]),
        ("cpc-audio", ["--data FOLDER", "--set data.root=FOLDER"]),
        ("supcon", ["--data FOLDER", "--preset digits", "--set data.root=FOLDER", "--set data.download=true"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "compare", "view-information"])
def test_a_recipe_without_its_data_names_the_ways_out(
    recipe: str,
    ways: list[str],
    command: str,
    call: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(command, recipe)
    sentence, *lines = err.splitlines()
    assert (code, out) == (2, "") and sentence.startswith(f"Error: {recipe} trains on data of kind ")
    assert lines == [f"  contralex {command} {recipe} {way}" for way in ways]
    assert not list(tmp_path.iterdir())


def test_missing_data_are_named_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[1:] = ['train', 'moco-v2']; from contralex.__main__ import main; "
        "assert main() == 2; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "contralex train moco-v2 --data FOLDER\n" in done.stderr, done.stderr


def test_every_recipe_has_its_data_or_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in registry().recipes():
        assert resolve(name).run.data.absent() is not None, name
    found = LabelledSpec(of=ImageFolderSpec(root="photos"), share=0.5)
    assert found.absent() == ("of.root", "photos")
    (tmp_path / "photos").mkdir()
    assert found.absent() is None


def test_fp16_without_a_gpu_names_the_setting_before_data_are_read(
    call: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text("nothing that could be read")
    code, _, err = call("train", "clip", "--data", "pairs.csv", "--set", "train.batch_size=8")
    assert (code, err.splitlines()[1:]) == (2, ["  --set train.precision=bf16"])
    assert not Path("runs").exists()


# Names and numbers


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("MoCo-V2", ["moco-v2"]),
        ("moco", ["moco-v1", "moco-v2", "moco-v3", "moco-v3-vit"]),
        ("dino_resnet50", ["dino-resnet50"]),
        ("momo-v2", ["moco-v2"]),
    ],
)
def test_a_recipe_is_found_in_whatever_letters(name: str, offered: list[str]) -> None:
    hint = registry().recipe_hint(name)
    assert hint.endswith(f"did you mean {' or '.join(repr(each) for each in offered)}?")


def test_epochs_are_short_for_a_set() -> None:
    assert set_texts(["train.seed=1"], 3) == ["train.epochs=3", "train.seed=1"]
    assert set_texts(["train.epochs=2"], None) == ["train.epochs=2"]
    with pytest.raises(ContralexError, match=r"train\.epochs is set twice; leave out the --set, or --epochs 3"):
        set_texts([" train.epochs =2"], 3)


# Commands in messages


def test_commands_in_messages_are_quoted_and_on_lines_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "sp ace" / "q'1 [red]"
    folder.mkdir(parents=True)
    with pytest.raises(failures.RunFailed) as error, failures.explain_failures(folder):
        raise OSError(errno.ENOSPC, "No space left on device")
    *_, command = str(error.value).splitlines()
    assert shlex.split(command) == ["contralex", "train", "--out", str(folder), "--resume"]

    assert (
        _sentence(["Warning: x", "Error: wrong:", "  --set a=1", "  --set a=2", ""])
        == "wrong:\n  --set a=1\n  --set a=2"
    )
    assert _sentence(["  something", ""]) == "something"


def test_a_disk_that_fills_at_the_start_or_at_the_end_is_one_sentence(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``spec.yaml`` is written before training, and a comparison's results after its table."""

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("contralex.training.run.write_text", full)
    out = tmp_path / "run"
    quick = ["--set=eval.knn=null", "--set=train.precision=fp32"]
    code, _, err = call("train", "simclr-v1", "--preset", "digits", "--out", str(out), *quick)
    assert code == 1 and "Traceback" not in err
    *_, sentence, command = err.splitlines()
    assert sentence == f"Error: The disk that holds {out / 'spec.yaml'} is full; make room, then begin it again with:"
    assert shlex.split(command) == ["contralex", "train", "--out", str(out), "--resume"]

    row = dict.fromkeys(columns(), 0.5) | {"name": "simclr-v1"}
    found = {"columns": columns(), "rows": [row], "failed": {}}
    monkeypatch.setattr("contralex.api.comparing.run_all", lambda *given: {})
    monkeypatch.setattr("contralex.api.comparing.summary", lambda *given: found)
    monkeypatch.setattr("contralex.comparison.table.cells", lambda *given: ["simclr-v1", "50.0"])
    monkeypatch.setattr("contralex.comparison.table.below", lambda result: [])
    monkeypatch.setattr("contralex.api.comparing.write_text", full)
    code, printed, err = call("compare", "simclr-v1", "--preset", "digits", "--out", str(tmp_path / "all"))
    assert code == 1 and "simclr-v1\t50.0" in printed
    assert err.splitlines()[-1] == f"Error: {tmp_path / 'all' / 'results.json'}: No space left on device"
