"""``train.micro_batch``: the loss, the gradient and the state of the whole batch, in the memory of a micro-batch."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from contralex.data.loading import EpochSampler, ViewDataset, collate
from contralex.errors import ContralexError
from contralex.lookup import batch_norm
from contralex.lookup.batch_norm import GroupedBatchNorm
from contralex.lookup.clock import Clock
from contralex.lookup.slots import Encoder
from contralex.lookup.step import LookUp
from contralex.lookup.values import Match, Rows, Step
from contralex.lookup.view import map_pixels, pixels_of
from contralex.plugin import InBatchSource, InfoNCE, InstanceTargets, MomentumEncoder, SharedKeyEncoder
from contralex.recipes.layers import resolve
from contralex.training import build, micro_batch_check, optimizers
from contralex.training.run import train
from tests.distributed import invariance
from tests.distributed.invariance import METHODS, B
from tests.train.tiny import TINY

MICRO, STEPS = 4, 2
EXACT = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("micro")


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_are_the_whole_batch(name: str, folder: Path) -> None:
    whole, in_parts = (_trained(name, folder, size) for size in (None, MICRO))
    for step, (one, other) in enumerate(zip(whole["steps"], in_parts["steps"], strict=True)):
        assert one["loss"] == pytest.approx(other["loss"], rel=EXACT), step
        assert _apart(one["grad"], other["grad"]) < EXACT, step
    for slot in ("encoder", "key_encoder", "negatives", "targets", "loss"):
        one, other = ({k: v for k, v in run["state"].items() if k.startswith(f"{slot}.")} for run in (whole, in_parts))
        assert _apart(one, other) < EXACT, slot


def _trained(name: str, folder: Path, micro: int | None) -> dict[str, Any]:
    """Some steps in float64, with BatchNorm in groups that a micro-batch holds one of, and without dropout, whose draws
    a whole batch makes in another order."""
    spec = invariance.spec_of(name, folder)
    split, views = spec.data.build().train(), spec.method.views.build()
    model = build.look_up(spec, len(split), split.labels)
    batch_norm.convert(model, MICRO)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    double = "mae" not in name  # its patches are float32
    if double:
        for part in (model.encoder, model.key_encoder, model.negatives):
            part.double()
    optimizer = optimizers.build(spec.train.optimizer, model)
    data = ViewDataset(split, views, spec.train.seed, B)
    per_epoch = data.order.steps
    first = min(invariance.FIRST, 2 * per_epoch - 2)
    steps = []
    for number, batch in zip(range(STEPS), EpochSampler(len(split), B, 0, 50, 0, 1, first), strict=False):
        items = collate([data[at] for at in batch])
        inputs = {
            v: map_pixels(Tensor.double, x) if double and pixels_of(x).is_floating_point() else x
            for v, x in items["views"].items()
        }
        moment = Step(Clock(first + number, 50 * per_epoch, per_epoch), spec.train.seed, B, micro_batch=micro)
        optimizers.set_rates(optimizer, spec.train.optimizer, moment.clock, B)
        optimizer.zero_grad()
        found = model(inputs, items["index"], moment)
        found.loss.backward()
        grad = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
        optimizers.drop_frozen_gradients(optimizer, moment.clock)
        optimizer.step()
        model.update(found.keys, moment)
        steps.append({"loss": float(found.loss.detach()), "grad": grad})
    return {"steps": steps, "state": {key: tensor.clone() for key, tensor in model.state_dict().items()}}


def _apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    if not one:
        return 0.0
    flat, theirs = (torch.cat([each[key].double().flatten() for key in sorted(one)]) for each in (one, other))
    return float((flat - theirs).norm() / flat.norm().clamp_min(1e-12))


class Tower(Encoder):
    """A network with chance inside, and a buffer that its forward pass writes."""

    dim = 8
    seen: Tensor
    hidden: Tensor

    def __init__(self, width: int = 32, norm: bool = False, p: float = 0.5) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(12, width)]
        for _ in range(4):
            layers += [nn.BatchNorm1d(width) if norm else nn.LayerNorm(width), nn.ReLU(), nn.Dropout(p)]
            layers += [nn.Linear(width, width)]
        self.net = nn.Sequential(*layers, nn.Linear(width, self.dim))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("hidden", torch.full((2,), float("-inf")))

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        if self.training:
            self.seen.mul_(0.9).add_(0.1 * torch.stack([view.mean() for view in views.values()]).mean())
        return {view: self.net(inputs) for view, inputs in views.items()}

    def features(self, view: Tensor) -> Tensor:
        out: Tensor = self.net(view)
        return out


class CentredTower(Tower):
    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.net(inputs - inputs.mean(dim=0)) for view, inputs in views.items()}


class RebuildingTower(Tower):
    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        self.seen = self.seen + 1
        return super().forward(views)


class WatchedTower(Tower):
    """Notes in which precision it computes."""

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        self.precise = not torch.is_autocast_enabled("cpu") and not torch.backends.cudnn.allow_tf32
        return super().forward(views)


def _method(encoder: Encoder, gradient: bool = True) -> LookUp:
    return LookUp(
        encoder,
        SharedKeyEncoder(gradient) if gradient else MomentumEncoder(encoder, momentum=0.9),
        InBatchSource(views="matched"),
        InstanceTargets(),
        InfoNCE(temperature=0.2),
        matches=[Match(0, 1), Match(1, 0)],
    )


def _step(micro: int | None, batch: int = 16) -> Step:
    return Step(Clock(0, 10, 5), seed=0, batch=batch, micro_batch=micro)


def _views(batch: int = 16) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {view: torch.randn(batch, 12, generator=generator) for view in (0, 1)}


@pytest.mark.parametrize("gradient", [True, False])
def test_the_second_pass_draws_what_the_first_drew(gradient: bool) -> None:
    torch.manual_seed(0)
    method = _method(Tower(), gradient)
    views, sample = _views(), torch.arange(16)
    grads = []
    for encode in (LookUp.encode_own, _with_all_graphs_kept):
        torch.manual_seed(3)
        method.zero_grad()
        queries, keys = encode(method, views, sample, _step(4))
        method.look_up(queries["image"], keys["image"], _step(4)).loss.backward()
        grads.append({name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None})
    assert _apart(*grads) < EXACT


def _with_all_graphs_kept(
    method: LookUp, views: Mapping[int, Tensor], sample: Tensor, step: Step
) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """The same in the memory of the whole batch: part after part, queries and then keys."""
    parts = [slice(begin, begin + 4) for begin in range(0, 16, 4)]
    cut = [({view: x[part] for view, x in views.items()}, sample[part]) for part in parts]
    if method.key_encoder.gradient:
        both = [method._encode_both(v, s, step) for v, s in cut]
        return _join([queries for queries, _ in both], sample), _join([keys for _, keys in both], sample)
    queries = [method._encode_queries(v, s) for v, s in cut]
    keys = [method._encode_keys(v, e, s, step) for (v, s), (_, e) in zip(cut, queries, strict=True)]
    return _join([rows for rows, _ in queries], sample), _join(keys, sample)


def _join(parts: list[dict[str, Rows]], sample: Tensor) -> dict[str, Rows]:
    return {"image": Rows.join([part["image"] for part in parts], sample)}


def test_buffers_are_written_once() -> None:
    states = []
    for micro in (None, 4):
        torch.manual_seed(0)
        encoder = Tower(norm=True, p=0.0)
        batch_norm.convert(encoder, 2)
        method = _method(encoder)
        method(_views(), torch.arange(16), _step(micro)).loss.backward()
        states.append({name: buffer.clone() for name, buffer in method.named_buffers() if "hidden" not in name})
        assert bool((encoder.hidden == float("-inf")).all())  # one that is not written stays as it is
        counts = [m.num_batches_tracked for m in encoder.modules() if isinstance(m, GroupedBatchNorm)]
        assert counts and all(int(count) == 2 for count in counts if count is not None)  # one for each view
    assert _apart(*states) < EXACT


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision_is_the_same_in_the_second_pass(precision: torch.dtype) -> None:
    grads = []
    for micro in (None, 4):
        torch.manual_seed(0)
        method = _method(Tower(p=0.0))
        with torch.autocast("cpu", precision):
            found = method(_views(), torch.arange(16), _step(micro))
        (found.loss * 128).backward()
        grads.append({name: p.grad / 128 for name, p in method.named_parameters() if p.grad is not None})
    assert _apart(*grads) < 2e-2  # the sum over samples is rounded to eight bits in each micro-batch


def test_a_step_keeps_the_activations_of_one_micro_batch() -> None:
    """Bytes that live at once, views left out."""
    peaks = {}
    for batch, micro in ((256, None), (256, 16), (16, None)):
        torch.manual_seed(0)
        method = _method(Tower(width=64, p=0.1))
        views, sample = _views(batch), torch.arange(batch)
        with _peak() as peak:
            method(views, sample, _step(micro, batch)).loss.backward()
        peaks[batch, micro] = peak()
    look_up = 6 * 2 * 256 * (8 + 256) * 4  # the rows and the scores of the whole batch, a few times over
    assert peaks[256, 16] < 1.3 * peaks[16, None] + look_up
    assert peaks[256, 16] < 0.5 * peaks[256, None]


@contextmanager
def _peak() -> Iterator[Any]:
    mode = _LiveBytes()
    with mode:
        yield lambda: mode.most


class _LiveBytes(TorchDispatchMode):
    """The bytes of the storages that operations have made and that still live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def test_what_mixes_samples_is_refused() -> None:
    spec = resolve("moco-v3", preset="digits", sets=["train.batch_size=8", "train.micro_batch=4"]).run
    views = {view: x[:2] for view, x in _views().items()}
    with torch.no_grad():
        micro_batch_check.check(spec, _method(Tower()).eval(), views)
        with pytest.raises(ContralexError, match=r"method.encoder makes other vectors .* beside other samples"):
            micro_batch_check.check(spec, _method(CentredTower()).eval(), views)


def test_what_mixes_samples_is_asked_in_float32() -> None:
    """Else rounding would look like mixing: a GPU computes two samples by other kernels than one."""
    spec = resolve("moco-v3", preset="digits", sets=["train.batch_size=8", "train.micro_batch=4"]).run
    tower, before = WatchedTower(), torch.backends.cudnn.allow_tf32
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        micro_batch_check.check(spec, _method(tower).eval(), {view: x[:2] for view, x in _views().items()})
    assert tower.precise
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_buffer_that_is_replaced_is_refused() -> None:
    with pytest.raises(ContralexError, match="puts a new tensor in the place of a buffer"):
        _method(RebuildingTower())(_views(), torch.arange(16), _step(4))


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["train.micro_batch=16"], "micro_batch is 16, which is larger than batch_size"),
        (["train.micro_batch=3"], "micro_batch is 3, which does not divide batch_size"),
        (["train.micro_batch=4", "train.batch_norm=sync"], r"train.batch_norm is sync(.|\n)*--set train.batch_norm=4"),
        (
            ["train.micro_batch=4", "train.batch_norm=8"],
            r"no whole groups of 8(.|\n)*--set train.batch_norm=4",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused(sets: list[str], sentence: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match=sentence):
        train(resolve("simclr-v1", preset="digits", data=str(images), sets=[*TINY, *sets]), tmp_path / "run")


def test_a_run_says_what_batch_norm_sees(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [*TINY, "train.micro_batch=4", "train.batch_norm=local", "train.epochs=1", "method.negatives.size=24"]
    train(resolve("moco-v2", preset="digits", data=str(images), sets=sets), tmp_path / "run")
    said = capsys.readouterr().out
    assert "BatchNorm's statistics are of 4 samples, a micro-batch, and not of the 8" in said
    assert "--set train.batch_norm=4" in said
