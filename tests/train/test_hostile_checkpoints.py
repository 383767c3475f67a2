"""A real checkpoint with anything done to its files: refused in one sentence, or read as the very same content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from contralex.api.inspecting import contents
from contralex.errors import ContralexError
from contralex.recipes.layers import resolve
from contralex.training.checkpoints import manifest, read, write
from contralex.training.checkpoints.state import CheckpointState

FUZZ = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


def model() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(made.parameters())
    made(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()
    return made, optimizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    made, optimizer = model()
    extra: dict[str, Any] = {"seconds": 1.0, "baselines": {}, "scaler": None, "epoch": 1.0, "drift": []}
    state = CheckpointState.make(resolve("simclr-v1"), 3, {"loss": 0.5}, **extra)
    return write.save(folder, state, made.state_dict(), optimizer)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Callable[[], Path]:
    def fresh() -> Path:
        target = tmp_path / "checkpoints" / whole.name
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(whole, target))

    return fresh


def everything(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """All that a run reads of a checkpoint."""
    found = read.open_checkpoint(folder, read.TENSORS)
    made, optimizer = model()
    write.restore(found, made, optimizer)
    found.resolved()
    tensors = {f"{name}/{key}": value for name in FILES[:2] for key, value in found.tensors(name).items()}
    return found.state, tensors


def refused_or_the_same(folder: Path, whole: Path) -> None:
    looked = contents(folder)
    json.dumps(looked, ensure_ascii=False).encode()
    try:
        state, tensors = everything(folder)
    except ContralexError as error:
        said = str(error)
    else:
        said = ""
    if said:
        said.encode()
        assert looked["problems"] or "does not fit" in said or "state.json" in said
        return
    wanted, right = everything(whole)
    assert state == wanted
    assert tensors.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in tensors.items())
    assert looked["problems"] == []


@FUZZ
@given(st.sampled_from(FILES), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7)), min_size=1, max_size=3))
def test_bits_that_flip(whole: Path, copy: Callable[[], Path], name: str, flips: list[tuple[float, int]]) -> None:
    folder = copy()
    content = bytearray((folder / name).read_bytes())
    for place, bit in flips:
        content[int(place * len(content))] ^= 1 << bit
    (folder / name).write_bytes(content)
    refused_or_the_same(folder, whole)


@FUZZ
@given(st.sampled_from(FILES), st.floats(0, 1), st.binary(max_size=20))
def test_files_that_end_early_or_late(
    whole: Path, copy: Callable[[], Path], name: str, share: float, tail: bytes
) -> None:
    folder = copy()
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))] + tail)
    refused_or_the_same(folder, whole)


@FUZZ
@given(st.sampled_from(FILES), st.sampled_from(FILES))
def test_files_in_each_others_place(whole: Path, copy: Callable[[], Path], one: str, other: str) -> None:
    folder = copy()
    shutil.copy(whole / one, folder / other)
    refused_or_the_same(folder, whole)


# Whoever writes a manifest that fits can say what he likes, so what is read is held against the same bounds again.


def resigned(folder: Path) -> Path:
    (folder / "manifest.json").unlink()
    manifest.write(folder)
    return folder


def only_refused(folder: Path) -> None:
    json.dumps(contents(folder), ensure_ascii=False).encode()
    try:
        everything(folder)
    except ContralexError as error:
        str(error).encode()


@FUZZ
@given(st.sampled_from(FILES[:3]), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7)), min_size=1, max_size=3))
def test_bits_that_flip_below_a_manifest_that_fits(
    copy: Callable[[], Path], name: str, flips: list[tuple[float, int]]
) -> None:
    folder = copy()
    content = bytearray((folder / name).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little") if name.endswith("safetensors") else len(content)
    for place, bit in flips:
        content[int(place * header)] ^= 1 << bit
    (folder / name).write_bytes(content)
    only_refused(resigned(folder))


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("~nobody/x"), st.just(10**30)
    ),
    lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(st.text(max_size=4), inside, max_size=3)),
    max_leaves=5,
)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, item in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*path, key)
        yield from places(item, (*path, key))


@FUZZ
@given(st.data())
def test_a_state_with_other_values(copy: Callable[[], Path], data: st.DataObject) -> None:
    folder = copy()
    state = json.loads((folder / "state.json").read_text())
    *above, last = data.draw(st.sampled_from(sorted(places(state), key=str)))
    node = state
    for key in above:
        node = node[key]
    node[last] = data.draw(VALUES)
    (folder / "state.json").write_text(json.dumps(state))
    only_refused(resigned(folder))


@FUZZ
@given(st.data())
def test_a_header_with_other_values(copy: Callable[[], Path], data: st.DataObject) -> None:
    folder = copy()
    file = folder / data.draw(st.sampled_from(FILES[:2]))
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    *above, last = data.draw(st.sampled_from(sorted(places(header), key=str)))
    node = header
    for key in above:
        node = node[key]
    node[last] = data.draw(VALUES)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    only_refused(resigned(folder))
