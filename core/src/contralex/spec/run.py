"""The root of a recipe: the method's five slots, the data, the training, the evaluation."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from contralex.spec.base import Delay, Slot, Spec
from contralex.spec.paths import LocalPath
from contralex.spec.schedule import Rate


class MethodSpec(Spec):
    """A method: five slots, the views that it looks at, and which query view looks up which key view.

    ``matches``: ``self`` (view 0 its own key), ``forward`` (view 0 looks up view 1), ``every`` (every view looks
    up every other key view), or a list such as ``["0->1", "1->0"]``. ``reduction``: whether the losses of the
    matches are averaged or summed.
    """

    views: Annotated[Spec, Slot("views")]
    encoder: Annotated[Spec, Slot("encoder")]
    key_encoder: Annotated[Spec, Slot("key_encoder")]
    negatives: Annotated[Spec, Slot("negatives")]
    targets: Annotated[Spec, Slot("targets")]
    loss: Annotated[Spec, Slot("loss")]
    matches: Literal["self", "forward", "every"] | tuple[str, ...]
    reduction: Literal["mean", "sum"] = "mean"

    @field_validator("matches")
    @classmethod
    def _readable(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for match in () if isinstance(value, str) else value:
            if not re.fullmatch(r"\d+->\d+", match):
                raise ValueError(f"a match is written like 0->1 (query view -> key view), not {match}")
        if not value:
            raise ValueError("at least one match is needed, such as 0->1")
        return value


class ParamGroup(Spec):
    """Parameters that are trained differently. The first group that matches a parameter takes it.

    ``match``: ``norm_and_bias`` (every parameter of one dimension), or a pattern of parameter names such as
    ``encoder.predictor.*``. ``lr_scale`` multiplies the learning rate; ``fixed_lr`` keeps it at the schedule's
    start; ``frozen_epochs``: the parameters do not move in that many first epochs.
    """

    match: str
    lr_scale: float = Field(1.0, gt=0, le=1e6)
    fixed_lr: bool = False
    weight_decay: float | None = Field(None, ge=0, le=1e4)
    trust_ratio: bool = True
    frozen_epochs: float = Field(0.0, ge=0, le=1e6, description="epochs")

    def delays(self) -> list[Delay]:
        frozen = Delay("frozen_epochs", self.frozen_epochs, f"until then {self.match} does not move")
        return [frozen] if self.frozen_epochs else []


class LRScaling(Spec):
    """How the learning rate follows the *global* batch B: × B/per (``linear``), × √B/√per (``sqrt``), or not."""

    rule: Literal["none", "linear", "sqrt"] = "none"
    per: int = Field(256, gt=0, le=2**24, description="samples")

    def factor(self, batch: int) -> float:
        return {"none": 1.0, "linear": batch / self.per, "sqrt": float((batch / self.per) ** 0.5)}[self.rule]


class _Optimizer(Spec):
    """What optimisers share. ``lr``: before scaling; a number or a schedule. ``scaling``: see LRScaling."""

    lr: Rate
    scaling: LRScaling = LRScaling()
    weight_decay: Rate = 0.0
    groups: tuple[ParamGroup, ...] = ()


_Beta = Annotated[float, Field(ge=0, lt=1)]


class SGD(_Optimizer):
    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False


class AdamW(_Optimizer):
    kind: Literal["adamw"] = "adamw"
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0, le=1)


class Adam(_Optimizer):
    """Adam with L2 regularisation in the gradient (Kingma & Ba, 2015), where AdamW decouples it."""

    kind: Literal["adam"] = "adam"
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0, le=1)


class LARS(_Optimizer):
    """SGD whose step in each layer follows ‖weights‖/‖gradient‖ (You et al., 2017).

    ``variant``: ``lars`` g ← g+wd·p, scaled by trust·‖p‖/‖g‖, momentum, LR last (MoCo v3, BYOL, Barlow Twins);
    ``tf`` the same with LR and trust inside the momentum buffer (SimCLR); ``larc`` trust·‖p‖/(‖g‖+wd·‖p‖+1e-8) on the
    gradient before momentum (apex, unclipped: SwAV). Groups with ``trust_ratio: false`` are plain SGD.
    """

    kind: Literal["lars"] = "lars"
    momentum: float = Field(0.9, ge=0, lt=1)
    trust: float = Field(0.001, gt=0, le=1e3)
    variant: Literal["lars", "tf", "larc"] = "lars"


Optimizer = Annotated[SGD | AdamW | Adam | LARS, Field(discriminator="kind")]


class CheckpointSpec(Spec):
    """When a checkpoint is saved, and which are kept.

    ``every``: so many epochs, and at the end. ``every_steps``: also every so many steps. ``keep_last``: how many of the
    newest. ``keep_every``: those of epochs that are multiples of it are kept for good. ``best``: a metric of
    ``metrics.jsonl``, such as ``knn_top1`` or ``loss``; of the checkpoints that were saved the best by it is kept.
    ``best_is`` says which that is.
    """

    every: int = Field(10, gt=0, le=10**6, description="epochs")
    every_steps: int | None = Field(None, gt=0, le=10**12, description="steps")
    keep_last: int = Field(2, gt=0, le=10**6, description="checkpoints")
    keep_every: int | None = Field(None, gt=0, le=10**6, description="epochs")
    best: str | None = None
    best_is: Literal["highest", "lowest"] = "highest"

    @model_validator(mode="after")
    def _a_loss_is_best_low(self) -> CheckpointSpec:
        if self.best == "loss" and self.best_is == "highest":
            raise ValueError("the best loss is the lowest; add best_is: lowest")
        return self


class TrainSpec(Spec):
    """How the method is trained.

    ``batch_size`` is global: the same on any number of processes. ``batch_norm``: over which samples statistics
    are taken: ``sync`` the whole batch of all processes, ``local`` each process's part, or a number n: groups of n
    samples, as if n were the batch of one device; that is the same on one process and on many. ``workers``: of
    each process, that load data; null chooses. ``clip``: the largest norm of the gradient. ``clip_each``: that is of
    each parameter by itself, not of all together. ``on_hook_error``: when a plugin's hook raises, ``stop`` the run with
    a checkpoint, or ``warn`` once and go on. ``on_bad_loss``: when the loss is no number or infinite, ``stop`` the run,
    or ``skip`` the step, as if its batch had not been, and count it.
    """

    epochs: int = Field(gt=0, le=10**6)
    max_steps: int | None = Field(
        None, gt=0, le=10**12, description="optimiser steps; a shorter run, whose schedules end there"
    )
    batch_size: int = Field(gt=0, le=2**24, description="samples, over all processes")
    optimizer: Optimizer
    batch_norm: Literal["sync", "local"] | Annotated[int, Field(gt=1, le=2**24)] = "local"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    clip: float | None = Field(None, gt=0, le=1e9)
    clip_each: bool = False
    seed: int = Field(0, ge=0, lt=2**63)
    workers: int | None = Field(None, ge=0, le=1024, description="processes")
    log_every: int = Field(10, gt=0, le=10**12, description="steps")
    checkpoint: CheckpointSpec = CheckpointSpec()
    trackers: tuple[str, ...] = ()
    on_hook_error: Literal["stop", "warn"] = "stop"
    on_bad_loss: Literal["stop", "skip"] = "stop"

    @model_validator(mode="after")
    def _clips_to_something(self) -> TrainSpec:
        if self.clip_each and self.clip is None:
            raise ValueError("clip_each says how clip is meant, and there is no clip; set clip, or take clip_each out")
        return self


class KNNSpec(Spec):
    """Weighted nearest neighbours as InstDisc's (section 3.4): each of the ``k`` nearest training features votes
    for its class with weight exp(cosine/temperature). ``every``: epochs between evaluations; null only at the end.
    ``baselines``: also judge raw pixels and the untrained encoder, once."""

    k: int = Field(200, gt=0, le=10**7)
    temperature: float = Field(0.07, ge=1e-4, le=1e3)
    features: Literal["backbone", "embedding"] = "backbone"
    every: int | None = Field(None, gt=0, le=10**6, description="epochs")
    baselines: bool = True


class LinearSpec(Spec):
    """A linear probe: logistic regression on the frozen encoder's features of the plain images, extracted once,
    so without augmentation. The objective is the mean cross-entropy + ``weight_decay``/2 · ‖weight‖², minimised by
    L-BFGS in at most ``iterations`` steps: no learning rate and no chance.

    ``standardize``: each feature has mean 0 and standard deviation 1 over the training samples. ``features``: the
    ``backbone``'s, or the ``embedding`` that is looked up. ``every``: epochs between evaluations; null only at the
    end. ``baselines``: also judge raw pixels and the untrained encoder, once.
    """

    weight_decay: float = Field(1e-3, gt=0, le=1e6)
    standardize: bool = True
    iterations: int = Field(1000, gt=0, le=10**6)
    features: Literal["backbone", "embedding"] = "backbone"
    every: int | None = Field(None, gt=0, le=10**6, description="epochs")
    baselines: bool = True


class ClassifySpec(Spec):
    """How often the class with the highest logit is right on the test split, where the encoder's vectors are logits.
    ``every``: epochs between evaluations; null only at the end."""

    every: int | None = Field(None, gt=0, le=10**6, description="epochs")


class EvalSpec(Spec):
    knn: KNNSpec | None = KNNSpec()
    linear: LinearSpec | None = None
    classify: ClassifySpec | None = None
    batch_size: int = Field(256, gt=0, le=2**24, description="samples")


class CodeFile(Spec):
    """A Python file that is run for its hooks, and what its text was, so that a changed file is noticed."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class InitSpec(Spec):
    """Where the encoder's first weights are from, in place of random ones. A run that is resumed does not ask.

    ``checkpoint``: a run's folder or checkpoint, of whose query encoder every tensor is taken that has the name and the
    shape of one of this run's. ``skip``: patterns of names that are not, such as ``projector.3.*``.
    """

    checkpoint: Annotated[str, LocalPath()]
    skip: tuple[str, ...] = ()


class RunSpec(Spec):
    """A whole run. ``name``, ``summary`` and ``paper`` are for people.

    ``code``: Python files whose hooks take part as a plugin's would, see :mod:`contralex.spec.code`. ``plugins``:
    distributions whose life-cycle hooks take part, beside those whose kinds or recipes are used anyway.
    """

    schema_: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    summary: str = ""
    paper: str = ""
    code: tuple[CodeFile, ...] = ()
    plugins: tuple[str, ...] = ()
    init: InitSpec | None = None
    method: MethodSpec
    data: Annotated[Spec, Slot("data")]
    train: TrainSpec
    eval: EvalSpec = EvalSpec()

    @model_validator(mode="after")
    def _fits(self) -> RunSpec:
        from contralex.spec.fit import check

        check(self)
        return self

    def matches(self) -> list[tuple[int, int]]:
        """The matches written out: (query view, key view)."""
        named = self.method.matches
        if named == "self":
            return [(0, 0)]
        if named == "forward":
            return [(0, 1)]
        if isinstance(named, str):
            flags = self.method.views.key_flags() or []
            keys = [view for view, flag in enumerate(flags) if flag]
            return [(query, key) for key in keys for query in range(len(flags)) if query != key]
        pairs = [tuple(int(part) for part in match.split("->")) for match in named]
        return [(query, key) for query, key in pairs]
