"""Look-ups compute in at least float32: half precision becomes float32, and float64 stays float64 to the last digit."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contralex.data.loading import EpochSampler, ViewDataset, collate
from contralex.lookup import batch_norm
from contralex.lookup.clock import Clock
from contralex.lookup.precision import at_least_float32
from contralex.lookup.values import Step
from contralex.lookup.view import map_pixels
from contralex.training import build
from tests.distributed.invariance import FIRST, METHODS, B, spec_of

_LARGE = {"dinov2-vits14", "dinov2-vitb14", "dinov2-vitg14", "dinov2-high-resolution", "ijepa-vitl16", "ijepa-vith14"}
_SAME_PARTS = {"cmc-alexnet", "byol-300", "simclr-v2", "moco-v1", "crd-teacher", "cpc-v2", "dino-resnet50"}
_DRAWS_WEIGHTS = {"deepcluster"}  # in float32, whenever its clusters are new
CASES = sorted(METHODS.keys() - _LARGE - _SAME_PARTS - _DRAWS_WEIGHTS)


class _Rounding(TorchDispatchMode):
    """Sees where numbers of float64 become others of float32, and where rounded ones meet them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        before, after = ({each.dtype for each in _tensors(values)} for values in ((args, kwargs), out))
        floats = before | after
        if torch.float64 in floats and torch.float32 in floats:
            lines = [line for line in traceback.extract_stack() if "/contralex" in line.filename]
            self.seen.append(f"{func} at {lines[-1].filename}:{lines[-1].lineno}: {lines[-1].line}")
        return out


def _tensors(values: Any) -> Iterator[Tensor]:
    return (each for each in tree_leaves(values) if isinstance(each, Tensor) and each.dim() and each.numel())


@pytest.mark.parametrize("case", CASES)
def test_float64_stays_float64(case: str, tmp_path: Path) -> None:
    """Two steps of each method: no operation rounds, nor does its gradient, and all state is in float64."""
    spec = spec_of(case, tmp_path)
    split, views = spec.data.build().train(), spec.method.views.build()
    model = build.look_up(spec, len(split), split.labels).double()
    batch_norm.convert(model, spec.train.batch_norm)
    data = ViewDataset(split, views, spec.train.seed, B)
    items = collate([data[at] for at in next(iter(EpochSampler(len(split), B, spec.train.seed, epochs=1)))])
    shown = {view: map_pixels(_widen, each) for view, each in items["views"].items()}
    for number in range(2):
        moment = Step(Clock(FIRST + number, 1000, 10), spec.train.seed, B)
        with _Rounding() as rounding:
            found = model(shown, items["index"], moment)
            found.loss.backward()
            model.update(found.keys, moment)
        assert not rounding.seen, "\n".join(dict.fromkeys(rounding.seen))
        assert found.loss.dtype == found.keys.vectors.dtype == torch.float64
    floats = {name: tensor.dtype for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    assert set(floats.values()) == {torch.float64}, floats


def _widen(pixels: Tensor) -> Tensor:
    return pixels.double() if pixels.is_floating_point() else pixels


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_precision_is_float32_or_float64(dtype: torch.dtype) -> None:
    vectors = torch.ones(2, dtype=dtype)
    precise, copy = at_least_float32(vectors), at_least_float32(vectors, copy=True)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert precise.dtype == copy.dtype == wanted
    assert (precise is vectors) == (dtype == wanted)
    assert copy.data_ptr() != vectors.data_ptr()
