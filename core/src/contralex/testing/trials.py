"""A small method to try a part in: the part, other parts that fit it, and a batch.

Parts fit by what their specs need and give, as in a recipe. A part is tried with every way to make keys (with gradient,
without, by a moving average) and every negative source that fits, because one that is right with one of them may be
wrong with another.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from contralex.data.views import Views
from contralex.errors import ContralexError
from contralex.kinds.key_encoders.specs import SharedSpec
from contralex.kinds.negatives.specs import InBatchSpec
from contralex.lookup import batch_norm, distributed
from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.lookup.values import Rows, Step, StepResult
from contralex.lookup.view import ViewBatch, stack_views
from contralex.plugins.hooks import METHOD_SLOTS
from contralex.plugins.registry import Plugin
from contralex.plugins.spec import Spec
from contralex.recipes.layers import resolve, resolve_data
from contralex.recipes.run_spec import RunSpec
from contralex.testing import matching_parts
from contralex.testing.check_errors import Failed
from contralex.testing.plugin_contents import Kind, list_kinds
from contralex.training import build

BATCH, DATASET_SIZE = 8, 40
SEEDS = (1, 2)  # where a check allows for chance, it is tried with both
FIRST_SAMPLE = 3  # the batch is samples 3 to 10: code that takes them for indices in the batch fails
LABELS = [index % 3 for index in range(DATASET_SIZE)]  # in turn, so that a batch has several samples of each class
_RATE = 0.05
_PER_EPOCH, _TOTAL = 5, 100


@dataclass(eq=False)
class Trial:
    """A complete method that is small enough for a test. ``label`` says what stands in its slots."""

    label: str
    data: dict[str, Any]  # of the resolved spec, which another process can be given
    why: str = ""  # where no method could be found: what is missing
    whole_recipe: bool = False
    given: dict[int, ViewBatch] | None = field(
        default=None, repr=False
    )  # its views, where another process has made them
    cache: dict[str, Any] = field(default_factory=dict, repr=False)
    made: dict[str, dict[int, ViewBatch]] = field(
        default_factory=dict, repr=False
    )  # the views that trials have in common

    def __str__(self) -> str:
        return self.label

    @cached_property
    def spec(self) -> RunSpec:
        return resolve_data(self.data).run

    @cached_property
    def views(self) -> dict[int, ViewBatch]:
        """For each view (BATCH, ...): real views of the first samples of the data's tiny set."""
        if self.given is not None:
            return self.given
        parts = (self.spec.data, self.spec.method.views)
        key = json.dumps([part.model_dump(mode="json") for part in parts])
        if key not in self.made:
            self.made[key] = _views(*parts)
        return self.made[key]

    def can_begin(self) -> bool:
        """Whether there are views to look at; where there are none, the checks of views and data say why."""
        try:
            return bool(self.data and self.views)
        except Exception:
            return False

    @property
    def sample(self) -> Tensor:
        return torch.arange(FIRST_SAMPLE, FIRST_SAMPLE + BATCH)

    def build(self) -> LookUp:
        """The method with BatchNorm over the whole batch, which is what equals itself on any number of processes."""
        model = build.look_up(self.spec, DATASET_SIZE, self._labels)
        batch_norm.convert(model, "sync")
        return model.train()

    def generator_after_build(self, seed: int) -> Tensor:
        """The state in which building leaves torch's generator, where it began with this seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            build.assemble(self.spec, DATASET_SIZE, self._labels)
            return torch.get_rng_state()

    @property
    def _labels(self) -> list[int] | None:
        return LABELS if "labels" in self.spec.data.offers() else None

    def with_seed(self, seed: int) -> Trial:
        """The same with other weights, on the same views."""
        data = {**self.data, "train": {**self.data["train"], "seed": seed}}
        return Trial(self.label, data, whole_recipe=self.whole_recipe, given=self.views)

    def moment(self, number: int) -> Step:
        """Some way into training, in the middle of an epoch."""
        return Step(Clock(4 * _PER_EPOCH + 1 + number, _TOTAL, _PER_EPOCH), seed=self.spec.train.seed, batch=BATCH)

    def forward(self, model: nn.Module, moment: Step, views: Mapping[int, ViewBatch] | None = None) -> StepResult:
        """One look-up with this process's part of the batch."""
        mine = distributed.own_slice(BATCH // distributed.world())
        views = self.views if views is None else views
        found: StepResult = model({view: images[mine] for view, images in views.items()}, self.sample[mine], moment)
        return found

    def advance(self, model: LookUp, optimizer: torch.optim.Optimizer, number: int, module: Any = None) -> StepResult:
        """A whole step: look up, backward, the optimiser, and then what changes after it. Gradients stay."""
        moment = self.moment(number)  # one for the look-up and for the update, as in training: its cache is shared
        optimizer.zero_grad()
        found = self.forward(module or model, moment)
        found.loss.backward()
        _set_rate(optimizer)
        optimizer.step()
        model.update(found.keys, moment)
        return found

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        # Plain: the first steps of Adam divide by gradients so small that rounding decides their sign.
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=_RATE, momentum=0.9)

    def rows(self, model: LookUp, moment: Step) -> tuple[Rows, Rows]:
        return model.encode(self.views, self.sample, moment)


def _set_rate(optimizer: torch.optim.Optimizer) -> None:
    """A step of at most length ``_RATE``: a longer one leaps so far that the next step is a matter of rounding. The
    gradients themselves stay as they are, because a wrong scale must show."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    length = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
    for group in optimizer.param_groups:
        group["lr"] = _RATE / max(1.0, length)


def list_trials(plugin: Plugin) -> list[Trial]:
    """For each kind of the five slots, the small methods that it stands in; and each recipe that has a small preset."""
    own = list_kinds(plugin)
    found = [trial for kind in own if kind.slot in METHOD_SLOTS for trial in try_kind(kind, own)]
    trials = [*found, *_try_recipes(plugin)]
    for trial in trials:
        trial.made = trials[0].made
    return trials


def try_kind(kind: Kind, own: list[Kind]) -> Iterator[Trial]:
    try:
        kind.example()
    except Failed as failed:  # which is that kind's alone: the plugin's others are tried
        yield Trial(f"{kind}, nothing that fits", {}, why=str(failed))
        return
    if kind.example().borrowed_from() is not None:
        yield from _try_borrowed(kind, own)
        return
    seen = set()
    for slots in matching_parts.choose_parts(kind, own):
        varied = {slot: slots[slot] for slot in matching_parts.VARIED if slot != kind.slot}
        ways = tuple(_name(spec) for spec in varied.values())
        if ways in seen:  # one composition for each way to make keys and each negative source
            continue
        data = _run(slots)
        if data is not None:
            seen.add(ways)
            yield Trial(f"{kind}, {', '.join(ways)}", data)
    if not seen:
        yield Trial(f"{kind}, nothing that fits", {}, why=matching_parts.explain_misfit(kind, own))


def _try_borrowed(kind: Kind, own: list[Kind]) -> Iterator[Trial]:
    """Beside each of the core's dictionaries, in a second look-up like the first."""
    for owner in matching_parts.small_kinds("negatives"):
        runs = (_run(slots) for slots in matching_parts.choose_parts(owner, own))
        data = next((run for run in runs if run is not None), None)
        if data is not None:
            method = data["method"]
            again = {name: method[name] for name in ("targets", "loss", "matches")}
            look_ups = {"again": {**again, "negatives": kind.example().model_dump(mode="json")}}
            yield Trial(f"{kind}, of {owner.cls.kind_name()}", {**data, "method": {**method, "look_ups": look_ups}})


def _run(slots: Mapping[str, Spec]) -> dict[str, Any] | None:
    """The resolved data of a run with these parts, if there is one."""
    plain = {slot: spec.model_dump(mode="json") for slot, spec in slots.items()}
    for matches in ("every", "forward", "self"):
        mapping = {
            "schema": 1,
            "name": "trial",
            "method": {slot: plain[slot] for slot in plain if slot != "data"} | {"matches": matches},
            "data": plain["data"],
            "train": {"epochs": 1, "batch_size": BATCH, "optimizer": {"kind": "sgd", "lr": 0.05}},
        }
        try:
            return resolve_data(mapping).data
        except ContralexError:
            continue
    return None


def _try_recipes(plugin: Plugin) -> Iterator[Trial]:
    for name in sorted(plugin.recipes):
        preset = matching_parts.find_small_preset(name)
        if preset is None:
            continue
        small = [f"train.batch_size={BATCH}", "train.precision=fp32"]
        try:
            yield Trial(f"recipe {name}", resolve(name, preset=preset, sets=small).data, whole_recipe=True)
        except ContralexError:
            continue  # the check `resolves` says what is wrong


def _views(data: Spec, views: Spec) -> dict[int, ViewBatch]:
    with tempfile.TemporaryDirectory() as folder:
        split = matching_parts.write_tiny_data(data, folder).build().train()
        part = views.build()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            items = [split[index % len(split)] for index in range(BATCH)]
            return {view: stack_views(make_together(part, items, view)) for view in range(part.count)}


def make_together(views: Views, items: Sequence[Any], view: int) -> Sequence[ViewBatch]:
    """A view of each item, which are one batch."""
    if not views.shares_draws:
        return [views.make(item, view) for item in items]
    shares = views.draw_for_batch(len(items), torch.Generator().manual_seed(0))
    drawn = [views.draw_with_share(item, view, share) for item, share in zip(items, shares, strict=True)]
    return views.make_drawn(items, view, drawn)


def _name(spec: Spec) -> str:
    kind = spec.kind_name()
    if isinstance(spec, SharedSpec):
        kind += " with gradient" if spec.gradient else " without gradient"
    if isinstance(spec, InBatchSpec) and spec.views == "all":
        kind += " of all views"
    return kind
