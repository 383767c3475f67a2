"""Checkpoints: whole or absent, checked before they are believed, kept as asked, and resumed with what is said."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from contralex.cli.app import app
from contralex.errors import ContralexError
from contralex.kinds.negatives.resizing import resize_queue
from contralex.plugins.registry import registry
from contralex.recipes.layers import resolve
from contralex.recipes.run_spec import CheckpointSpec
from contralex.training import build
from contralex.training.checkpoints import read, retention, tensor_file, write
from contralex.training.checkpoints.state import CheckpointState
from contralex.training.run import train

Save = Callable[..., Path]
MOCO = resolve("moco-v2", preset="digits")


def model(width: int = 3, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model whose optimiser has kept something."""
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9)
    made(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    return made, optimizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def save(folder: Path) -> Save:
    def saved(step: int, *, metrics: dict[str, float] | None = None, **extra: Any) -> Path:
        made, optimizer = model(seed=step)
        state = CheckpointState.make(MOCO, step, metrics, **{"epoch": step / 10, **extra})
        return write.save(folder, state, made.state_dict(), optimizer)

    return saved


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(path: Path) -> str:
    with pytest.raises(ContralexError) as error:
        read.open_checkpoint(path, read.TENSORS)
    return str(error.value)


# Writing


def test_what_is_saved_is_what_is_restored(save: Save, folder: Path) -> None:
    target = save(10, metrics={"loss": 0.5, "nothing": float("nan")})
    assert names(folder) == ["last", "step-10"]
    assert names(target) == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    found = read.open_checkpoint(folder.parent)
    assert (found.step, found.state.metrics) == (10, {"loss": 0.5})
    before, optimizer = model(seed=10)
    after, other = model(seed=11)
    write.restore(found, after, other)
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    one, two = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert all(torch.equal(one[place]["momentum_buffer"], two[place]["momentum_buffer"]) for place in one)


def test_a_step_that_is_saved_again_is_there_all_the_time(
    save: Save, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = save(10)
    rename = Path.rename

    def killed(self: Path, to: Path) -> Path:
        if self.name.startswith(".step-10-") and to == target:
            raise KeyboardInterrupt  # between setting the old one aside and putting the new one there
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", killed)
    monkeypatch.setattr(
        "contralex.training.checkpoints.retention.remove", lambda path: None
    )  # a killed process clears nothing up
    with pytest.raises(KeyboardInterrupt):
        save(10)
    monkeypatch.undo()
    assert not target.exists()
    assert read.open_checkpoint(folder.parent).step == 10  # the draft or the old one: both are whole
    save(10)
    retention.prune(folder, CheckpointSpec(), 10)
    assert names(folder) == ["last", "step-10"]


def test_a_failed_rename_brings_the_old_one_back(save: Save, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = save(10)
    rename = Path.rename

    def broken(self: Path, to: Path) -> Path:
        if self.name.startswith(".step-10-") and "before" not in self.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(write.NotSaved, match=r"could not be written \(Input/output error\)"):
        save(10)
    monkeypatch.undo()
    assert names(folder) == ["last", "step-10"]
    assert read.is_whole(target)


def test_a_file_of_tensors_is_the_one_that_safetensors_writes(tmp_path: Path) -> None:
    tensors = {f"of.{dtype}": (torch.arange(6).view(2, 3) % 2).to(dtype) for dtype in tensor_file.TYPES}
    tensors |= {"é": torch.randn(3, 4), "none": torch.empty(0, 3), "number": torch.tensor(3.0)}
    safetensors.torch.save_file(tensors, tmp_path / "theirs")
    digest = tensor_file.save_file(tensors, tmp_path / "ours")
    text = (tmp_path / "ours").read_bytes()
    assert text == (tmp_path / "theirs").read_bytes()
    assert digest == hashlib.sha256(text).hexdigest()


def test_tensors_that_share_storage_or_are_not_contiguous_are_saved_as_they_are(tmp_path: Path) -> None:
    shared = torch.randn(4, 5)
    tensors = {"a": shared, "b": shared, "c": shared.T, "d": shared[1:]}
    tensor_file.save_file(tensors, tmp_path / "file")
    torch.testing.assert_close(safetensors.torch.load_file(tmp_path / "file"), tensors, rtol=0, atol=0)
    with pytest.raises(ContralexError, match=r"b is of type torch\.complex128"):
        tensor_file.save_file({"a": shared, "b": torch.zeros(1, dtype=torch.complex128)}, tmp_path / "other")


def test_only_the_tensors_that_are_asked_for_are_read(save: Save) -> None:
    checkpoint = read.open_checkpoint(save(10))
    every, some = checkpoint.tensors(), checkpoint.tensors(prefix="1.")
    assert set(some) == {name for name in every if name.startswith("1.")} < set(every)
    assert all(torch.equal(tensor, every[name]) for name, tensor in some.items())


@pytest.mark.parametrize("way", ["save_file", "manifest.write", "write_text"])
def test_a_full_disk(way: str, save: Save, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(10)
    monkeypatch.setattr(f"contralex.training.checkpoints.write.{way}", full)
    with pytest.raises(write.NotSaved) as error:
        save(20)
    good = folder / ("step-20" if way == "write_text" else "step-10")  # only its name was not written to `last`
    assert str(error.value) == (
        f"The checkpoint {folder / 'step-20'} could not be written (No space left on device); make room or mend the "
        f"disk; the last good one is {good}, and the run goes on from it with:\n"
        f"  contralex train --out {folder.parent} --resume"
    )
    assert [name for name in names(folder) if name.startswith(".")] == []
    monkeypatch.undo()
    assert read.open_checkpoint(folder / "step-10").step == 10


LIMITED = """
import resource, signal, sys
from pathlib import Path
from contralex.training.checkpoints import write
from contralex.training.checkpoints.state import CheckpointState
from tests.train.test_checkpoints import MOCO, model
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
made, optimizer = model()
folder = Path(sys.argv[1])
write.save(folder, CheckpointState.make(MOCO, 1), made.state_dict(), optimizer)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    write.save(folder, CheckpointState.make(MOCO, 2), made.state_dict(), optimizer)
except write.NotSaved as error:
    sys.stderr.write(str(error)[:80])
    raise SystemExit(7)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the size of files")
def test_the_system_refuses_to_write_more(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert done.returncode == 7, done.stderr
    assert names(tmp_path / "checkpoints") == ["last", "step-1"]


# Reading


@pytest.fixture
def three(save: Save, folder: Path) -> Path:
    for step in (10, 20, 30):
        save(step)
    return folder


def flip(file: Path, place: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def replaced(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "last").write_text(text) and None


@pytest.mark.parametrize(
    ("damage", "step", "named"),
    [
        (
            lambda folder: flip(folder / "step-30" / "model.safetensors"),
            20,
            "model.safetensors is damaged: its SHA-256",
        ),
        (lambda folder: flip(folder / "step-30" / "state.json"), 20, "state.json is damaged: its SHA-256"),
        (
            lambda folder: (folder / "step-30" / "optimizer.safetensors").unlink(),
            20,
            "optimizer.safetensors is damaged",
        ),
        (lambda folder: (folder / "step-30" / "manifest.json").unlink(), 20, "manifest.json is damaged: no such file"),
        (lambda folder: os.truncate(folder / "step-30" / "model.safetensors", 50), 20, "it has 50 bytes where"),
        (lambda folder: shutil.rmtree(folder / "step-30"), 20, "step-30 is missing"),
        (lambda folder: (folder / "last").unlink(), 30, "last does not name a checkpoint: No such file"),
        (replaced(""), 30, "it says '' where step-N is expected"),
        (replaced("step-10\n\n"), 30, "last does not name"),
        (replaced("step-010"), 30, "last does not name"),
        (replaced("../../../etc"), 30, "last does not name"),
        (replaced("/etc"), 30, "last does not name"),
        (replaced("CON"), 30, "last does not name"),
        (replaced("step-1\0"), 30, "last does not name"),
        (replaced("step-" + "9" * 300), 30, "last does not name"),
        (replaced("step-99"), 30, "step-99 is missing"),
        (lambda folder: (folder / "last").unlink() or (folder / "last").mkdir(), 30, "last does not name"),
        (lambda folder: (folder / "last").unlink() or (folder / "last").symlink_to("/dev/zero"), 30, "symbolic link"),
        (lambda folder: (folder / "last").unlink() or os.mkfifo(folder / "last"), 30, "no regular file"),
    ],
)
def test_the_newest_that_is_whole_is_taken(
    damage: Callable[[Path], Any], step: int, named: str, three: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(three)
    for path in (three.parent, three):
        caplog.clear()
        assert read.open_checkpoint(path, read.TENSORS).step == step
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("contralex", logging.WARNING)
        assert named in record.getMessage()
        assert record.getMessage().endswith(f"So {three / f'step-{step}'} is taken.")


@pytest.mark.parametrize("damage", [flip, os.unlink, lambda file: os.truncate(file, 10)])
def test_the_optimisers_file_is_of_no_account_where_it_is_not_read(
    damage: Callable[[Path], Any], three: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = read.open_checkpoint(three).tensors()
    damage(three / "step-30" / "optimizer.safetensors")
    for path in (three.parent, three / "step-30"):
        found = read.open_checkpoint(path)
        assert found.step == 30 and found.tensors().keys() == whole.keys()
        assert read.open_checkpoint(path, ()).step == 30
    assert not caplog.records
    assert "optimizer.safetensors is damaged" in refusal(three / "step-30")
    flip(three / "step-30" / "model.safetensors")
    assert read.open_checkpoint(three.parent).step == 20


def test_what_last_names_is_taken_without_a_word(three: Path, caplog: pytest.LogCaptureFixture) -> None:
    (three / "last").write_text("step-10\n")
    assert read.open_checkpoint(three.parent).step == read.open_checkpoint(three / "last").step == 10
    assert not caplog.records


def test_where_none_is_whole_each_is_named(three: Path) -> None:
    for step in (10, 20, 30):
        flip(three / f"step-{step}" / "model.safetensors")
    said = refusal(three.parent)
    assert said.startswith(f"{three} holds no checkpoint that is whole")
    assert all(said.count(str(three / f"step-{step}" / "model.safetensors")) == 1 for step in (10, 20, 30))


def test_an_explicit_checkpoint_that_is_damaged(three: Path) -> None:
    flip(three / "step-20" / "optimizer.safetensors")
    assert refusal(three / "step-20") == (
        f"{three / 'step-20' / 'optimizer.safetensors'} is damaged: its SHA-256 is not that of what was saved; "
        "take another checkpoint."
    )
    assert "step-40 is missing; give a run's folder" in refusal(three / "step-40")
    assert "is no checkpoint" in refusal(three.parent.parent)
    (three.parent.parent / "spec.yaml").touch()
    assert "a run that has not saved a checkpoint yet. If it has ended, begin it again:\n  contralex train" in refusal(
        three.parent.parent
    )
    (three / "step-20").rename(three / "step-21")
    assert "is damaged" in refusal(three / "step-21")


def test_files_that_were_put_beside_are_no_damage(three: Path) -> None:
    (three / "step-30" / "exported.onnx").write_text("of a plugin's hook")
    assert read.open_checkpoint(three / "step-30").step == 30


def resign(folder: Path) -> None:
    """As whoever wants to be believed would do."""
    (folder / "manifest.json").unlink()
    write.manifest.write(folder)


def test_links_are_not_followed(three: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(three / "step-30", outside)
    (three / "step-30").symlink_to(outside)
    assert "is a symbolic link that leads out of" in refusal(three / "step-30")
    assert read.open_checkpoint(three).step == 20
    (tmp_path / "secret").write_bytes((three / "step-20" / "state.json").read_bytes())
    (three / "step-20" / "state.json").unlink()
    (three / "step-20" / "state.json").symlink_to(tmp_path / "secret")
    assert "state.json is damaged: it is a symbolic link" in refusal(three / "step-20")
    (tmp_path / "best").symlink_to(
        three / "step-10"
    )  # one's own name for a checkpoint, within the folder that it is in
    assert read.open_checkpoint(tmp_path / "best").step == 10


def test_a_manifest_with_names_that_lead_away(three: Path) -> None:
    file = three / "step-30" / "manifest.json"
    manifest = json.loads(file.read_text())
    for name in ("../last", "/etc/passwd", "..", "a\nb", "a\\b", ""):
        changed = {**manifest, "files": {**manifest["files"], name: {"size": 1, "sha256": "0" * 64}}}
        file.write_text(json.dumps(changed))
        assert "which is no file's name" in refusal(three / "step-30")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"step": -1}, "step"),
        ({"step": "30"}, "step"),
        ({"step": 29}, "it is of step 29"),
        ({"step": 10**30}, "step"),
        ({"format": 2}, "has format 2"),
        ({"spec": []}, "spec"),
        ({"digest": "no"}, "digest"),
        ({"plugins": {"x; rm -rf /": "1"}}, "plugins"),
        ({"plugins": {"x": "1; rm"}}, "plugins"),
        ({"optimizer": {"0.step": "1"}}, "optimizer"),
        ({"pending": {"loss": "1"}}, "pending"),
        ({"metrics": {"loss": []}}, "metrics"),
        ({"spec": {"a": "\ud800"}}, "no text"),
    ],
)
def test_a_state_that_no_run_wrote(change: dict[str, Any], problem: str, three: Path) -> None:
    file = three / "step-30" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    resign(three / "step-30")
    assert problem in refusal(three / "step-30")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 10**6, "nested too deeply"),
        ('{"format": 1, "spec": ' + '{"a":' * 500 + "1" + "}" * 501, "state.json"),
        ('{"step": ' + "1" * 10**5 + "}", "Exceeds the limit"),
        ('{"step": NaN}', "NaN is no number"),
        ("{", "state.json is damaged"),
        ("[]", "state.json is damaged"),
        (" " * (64 * 2**20 + 1), "more than 67108864 bytes"),
    ],
)
def test_json_out_of_all_bounds(text: str, problem: str, three: Path) -> None:
    (three / "step-30" / "state.json").write_text(text)
    resign(three / "step-30")
    assert problem in refusal(three / "step-30")


def header(content: Any, length: int | None = None, tensors: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + tensors


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "its header would have 0 bytes"),
        (header({}, 2**63), "its header would have 9223372036854775808 bytes"),
        (header({}, 10**9), "its header would have 1000000000 bytes"),
        (header(b"[" * 10**5), "nested too deeply"),
        (header([]), "no block of tensors"),
        (header({"a": 1}), "does not say what 'a' is"),
        (header({"a\n": ENTRY}, None, b"1234"), "does not say what 'a\\n' is"),
        (header({"a": {**ENTRY, "dtype": "PICKLE"}}, None, b"1234"), "of a type that is not known"),
        (header({"a": {**ENTRY, "shape": [-1]}}, None, b"1234"), "the shape or the place"),
        (header({"a": {**ENTRY, "shape": [2**62, 2**62]}}, None, b"1234"), "not where its header says"),
        (header({"a": {**ENTRY, "data_offsets": [4, 8]}}, None, b"12345678"), "not where its header says"),
        (header({"a": ENTRY, "b": ENTRY}, None, b"1234"), "not where its header says"),
        (header({"a": ENTRY}, None, b"123"), "3 bytes of tensors"),
    ],
)
def test_headers_that_no_run_wrote(content: bytes, problem: str, three: Path) -> None:
    (three / "step-30" / "model.safetensors").write_bytes(content)
    resign(three / "step-30")
    assert problem in refusal(three / "step-30")


def test_nothing_is_loaded_halfway(save: Save) -> None:
    found = read.open_checkpoint(save(10))
    for width, problem in ((5, r"0\.bias is \(3,\) of float32, and the spec makes \(5,\) of float32"),):
        made, optimizer = model(width)
        before = {name: value.clone() for name, value in made.state_dict().items()}
        with pytest.raises(ContralexError, match=problem):
            write.restore(found, made, optimizer)
        assert all(torch.equal(value, made.state_dict()[name]) for name, value in before.items())
    half, optimizer = model()
    with pytest.raises(ContralexError, match=r"0\.bias is \(3,\) of float32, and the spec makes \(3,\) of float64"):
        write.restore(found, half.double(), optimizer)
    made, optimizer = model()

    def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"other" if name == "1.bias" else name: value for name, value in tensors.items()}

    with pytest.raises(ContralexError, match=r"it has no 1\.bias; the spec has no other"):
        write.restore(found, made, optimizer, renamed)
    made, _ = model()
    with pytest.raises(
        ContralexError, match="parameter 0 has momentum_buffer where Adam keeps exp_avg, exp_avg_sq, step"
    ):
        write.restore(found, made, torch.optim.Adam(made.parameters()))
    with pytest.raises(ContralexError, match="it has the state of a parameter 2, and the spec makes 2"):
        write.restore(found, made, torch.optim.SGD(list(made.parameters())[:2], lr=0.1))
    with pytest.raises(ContralexError, match=r"0\.momentum_buffer is \(3, 4\)"):
        write.restore(found, made, torch.optim.SGD(list(made.parameters())[::-1], lr=0.1))


# Keeping


def kept(folder: Path, spec: CheckpointSpec, step: int) -> list[int]:
    retention.prune(folder, spec, step)
    return sorted(int(name.split("-")[1]) for name in names(folder) if name.startswith("step-"))


def test_what_is_kept(save: Save, folder: Path) -> None:
    for epoch, figure in enumerate([0.1, 0.9, 0.3, 0.4, 0.2, 0.2], 1):
        save(10 * epoch, metrics={"knn_top1": figure, "loss": figure})
    save(65)
    (folder / ".step-7-abc").mkdir()
    spec = CheckpointSpec(keep_last=9)
    assert kept(folder, spec, 65) == [10, 20, 30, 40, 50, 60, 65]
    assert not (folder / ".step-7-abc").exists()
    assert kept(folder, CheckpointSpec(keep_every=3, best="knn_top1"), 65) == [20, 30, 60, 65]
    assert kept(folder, CheckpointSpec(keep_last=1, best="loss", best_is="lowest"), 65) == [60, 65]
    assert kept(folder, CheckpointSpec(keep_last=1, best="nobody"), 65) == [65]


def test_of_equals_the_older_one_is_kept(save: Save, folder: Path) -> None:
    for step in (10, 20, 30):
        save(step, metrics={"loss": 0.5})
    assert kept(folder, CheckpointSpec(keep_last=1, best="loss", best_is="lowest"), 30) == [10, 30]


def test_the_last_good_one_is_never_removed(save: Save, folder: Path) -> None:
    for step in (10, 20, 30):
        save(step)
    flip(folder / "step-30" / "model.safetensors")  # which its size does not show
    (folder / "step-20" / "manifest.json").unlink()
    assert kept(folder, CheckpointSpec(keep_last=1), 30) == [10, 20, 30]
    assert read.open_checkpoint(folder).step == 10


def test_a_run_that_went_back_keeps_its_own(save: Save, folder: Path) -> None:
    for step in (10, 20, 90, 100):
        save(step)
    save(30)
    assert kept(folder, CheckpointSpec(keep_last=1), 30) == [30, 90, 100]


def test_the_best_loss_is_no_high_one() -> None:
    with pytest.raises(ContralexError, match="the best loss is the lowest; add best_is: lowest"):
        resolve("moco-v2", preset="digits", sets=["train.checkpoint.best=loss"])


# A run

SETS = [
    "method.encoder.backbone={kind: conv, widths: [8], strides: [4]}",
    "method.negatives.size=16",
    "train.epochs=2",
    "train.batch_size=8",
    "train.batch_norm=local",
    "train.precision=fp32",
    "train.workers=0",
    "train.log_every=2",
    "eval.knn={every: 1, k: 3, baselines: false}",
]


def tiny(images: Path, *sets: str) -> Any:
    return resolve("moco-v2", preset="digits", data=str(images), sets=[*SETS, *sets])


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(tiny(images, "train.checkpoint={every: 1, every_steps: 3, keep_last: 9}"), folder)
    return folder


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


def state_of(folder: Path, step: int) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "checkpoints" / f"step-{step}" / "state.json").read_text())
    return state


def test_when_a_run_saves(run: Path) -> None:
    assert names(run / "checkpoints") == ["last", "step-10", "step-3", "step-5", "step-6", "step-9"]
    assert state_of(run, 3)["metrics"]["step"] == 2  # what was logged last
    epoch = state_of(run, 5)
    assert epoch["epoch"] == 1 and 0 <= epoch["metrics"]["knn_top1"] <= 1
    assert (epoch["drift"], state_of(run, 6)["epoch"]) == ([], 1.2)


def test_what_is_kept_may_change_when_a_run_is_resumed(images: Path, copied: Path) -> None:
    (copied / "checkpoints" / "last").write_text("step-6\n")
    train(tiny(images, "train.checkpoint={every: 1, keep_last: 1}"), copied, resume=True)
    assert names(copied / "checkpoints") == ["last", "step-10"]


def test_another_spec_is_refused_value_by_value(images: Path, copied: Path) -> None:
    with pytest.raises(ContralexError) as error:
        train(tiny(images, "train.clip=1", "train.seed=3"), copied, resume=True)
    assert (
        f"{copied} was started with another spec or other versions: train.clip: null → 1; train.seed: 0 → 3; go on"
    ) in str(error.value)
    assert "--allow-drift" in str(error.value)


def test_drift_that_is_allowed_is_recorded(images: Path, copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    resolved = tiny(images, "train.clip=1", "train.epochs=3", "method.negatives.size=24")
    train(resolved, copied, resume=True, allow_drift=True)
    changes = ["method.negatives.size: 16 → 24", "train.epochs: 2 → 3", "train.clip: null → 1"]
    assert state_of(copied, 15)["drift"] == [{"step": 10, "changes": changes}]
    assert f"goes on from step 10 with: {'; '.join(changes)}." in caplog.text
    assert resolve(str(copied / "spec.yaml")).digest == resolved.digest
    train(resolved, copied, resume=True)  # it is the run's spec now
    groups = tiny(images, "train.optimizer.groups=[]")
    with pytest.raises(ContralexError, match="optimiser's state in the order of the groups"):
        train(groups, copied, resume=True, allow_drift=True)
    wider = tiny(images, "method.encoder.backbone={kind: conv, widths: [9], strides: [4]}")
    with pytest.raises(ContralexError, match=r"model\.safetensors does not fit the spec: .*the spec makes \(9, 3"):
        train(wider, copied, resume=True, allow_drift=True)


def test_other_versions_of_plugins(
    images: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resolved = resolve(str(copied / "spec.yaml"))
    began = state_of(copied, 10)["plugins"]
    monkeypatch.setattr(registry().plugins["contralex-moco"], "version", "9.0")
    with pytest.raises(ContralexError, match=rf"contralex-moco: {began['contralex-moco']} → 9\.0; go on with its own"):
        train(resolved, copied, resume=True)
    longer = tiny(images, "train.epochs=3")
    train(longer, copied, resume=True, allow_drift=True)
    assert f"contralex-moco: {began['contralex-moco']} → 9.0" in caplog.text
    assert state_of(copied, 15)["plugins"]["contralex-moco"] == "9.0"
    monkeypatch.setattr(registry().plugins["contralex-moco"], "version", "9.1")
    build.load_encoder(copied)  # to look at it, another version is good enough, and said
    assert "was made with another version: contralex-moco" in caplog.text
    plugins = dict(registry().plugins)
    del plugins["contralex-moco"]
    monkeypatch.setattr(registry(), "_plugins", plugins)
    with pytest.raises(
        ContralexError, match=r"made with contralex-moco .*, which is missing: pip install contralex-moco=="
    ):
        train(resolved, copied, resume=True)


def test_the_command_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(
        "contralex.training.run.train_in_folder", lambda *arguments: started.append(arguments) or (run, {})
    )
    words = ["train", "--resume", "--out", str(run), "--allow-drift", "--preset", "digits", "--set", "train.epochs=7"]
    assert CliRunner().invoke(app, words).exit_code == 0
    ((resolved, out, resume, allowed, _),) = started
    assert (out, resume, allowed, resolved.run.train.epochs) == (run, True, True, 7)
    assert resolved.run.train.batch_size == resolve("moco-v2", preset="digits").run.train.batch_size
    assert "add --resume" in str(CliRunner().invoke(app, ["train", "moco-v2", "--allow-drift"]).exception)


# The queue


def queue(size: int, written: int) -> dict[str, Tensor]:
    """As after ``written`` keys, of which the n-th is n everywhere; a place that was never written has -1."""
    vectors, sample = -torch.ones(size, 2), torch.full((size,), -1)
    for number in range(written):
        vectors[number % size], sample[number % size] = number, number
    return {"vectors": vectors, "sample": sample, "pointer": torch.tensor(written % size)}


@pytest.mark.parametrize(
    ("size", "written", "now", "samples", "pointer"),
    [
        (4, 6, 6, [2, 3, 4, 5, -1, -1], 4),
        (4, 4, 8, [0, 1, 2, 3, -1, -1, -1, -1], 4),
        (4, 3, 6, [0, 1, 2, -1, -1, -1], 3),
        (6, 9, 3, [6, 7, 8], 0),
        (6, 2, 3, [0, 1, -1], 2),
        (6, 3, 3, [0, 1, 2], 0),
        (4, 0, 6, [-1] * 6, 0),
    ],
)
def test_a_queue_in_another_size(size: int, written: int, now: int, samples: list[int], pointer: int) -> None:
    fresh = {**queue(now, 0), "vectors": torch.full((now, 2), 99.0)}
    found = resize_queue(queue(size, written), fresh)
    assert found["sample"].tolist() == samples
    assert found["vectors"][:, 0].tolist() == [99 if sample < 0 else sample for sample in samples]
    assert (int(found["pointer"]), found["pointer"].shape) == (pointer, ())


def test_a_queue_that_is_no_queue() -> None:
    with pytest.raises(ContralexError, match=r"negatives\.vectors is \(4, 2\) of float32 in the checkpoint"):
        resize_queue(queue(4, 2), {**queue(6, 0), "vectors": torch.zeros(6, 3)})
    with pytest.raises(ContralexError, match=r"negatives\.vectors .* the spec makes \(6, 2\) of float16"):
        resize_queue(queue(4, 2), {**queue(6, 0), "vectors": torch.zeros(6, 2).half()})
    with pytest.raises(ContralexError, match="is not within its queue"):
        resize_queue({**queue(4, 2), "pointer": torch.tensor(7)}, queue(6, 0))


# Looking


def test_inspect(run: Path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(run)])
    assert done.exit_code == 0, done.output
    assert f"{run / 'checkpoints' / 'step-10'}: step 10, digest {state_of(run, 10)['digest']}" in done.output
    assert "negatives:\n    kind: queue\n    size: 16" in done.output
    assert "negatives\t3\t" in done.output
    assert "negatives.vectors" not in done.output
    assert (
        "negatives.vectors\t[16, 128]\tF32\t8,192" in CliRunner().invoke(app, ["inspect", str(run), "--tensors"]).output
    )
    found = json.loads(CliRunner().invoke(app, ["inspect", str(run / "checkpoints" / "step-3"), "--json"]).output)
    assert (found["step"], found["problems"]) == (3, [])
    assert all(plugin["version"] == plugin["installed"] for plugin in found["plugins"])
    assert [file["problem"] for file in found["files"]] == ["", "", ""]


def test_inspect_says_what_is_damaged_and_shows_the_rest(copied: Path) -> None:
    step = copied / "checkpoints" / "step-10"
    flip(step / "model.safetensors")
    done = CliRunner().invoke(app, ["inspect", str(step)])
    assert done.exit_code == 1
    assert f"damaged: {step / 'model.safetensors'}: its SHA-256" in done.output
    assert "size: 16" in done.output
    (step / "state.json").unlink()
    assert CliRunner().invoke(app, ["inspect", str(step)]).exit_code == 1
    assert CliRunner().invoke(app, ["inspect", str(copied)]).exit_code == 0  # the next one is whole


def test_inspect_imports_no_torch(run: Path) -> None:
    code = (
        "import sys; from contralex.api.inspecting import contents; contents(__import__('pathlib').Path(sys.argv[1])); "
    )
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(run)], check=True)
