"""The root of a recipe: the method's five slots, the data, the training, the evaluation."""

from __future__ import annotations

import math
import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from contralex.lookup.names import IMAGE, MAIN
from contralex.plugins.spec import Delay, Slot, Spec, leave_out_defaults
from contralex.recipes.compatibility import check
from contralex.recipes.paths import LocalPath
from contralex.recipes.plugin_use import PluginUse, check_once
from contralex.recipes.schedules import Rate

Matches = Literal["self", "forward", "every"] | tuple[str, ...]
_Output = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _check_matches(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    for match in () if isinstance(value, str) else value:
        if not re.fullmatch(r"\d+->\d+", match):
            raise ValueError(f"a match is written like 0->1 (query view -> key view), not {match}")
    if not value:
        raise ValueError("at least one match is needed, such as 0->1")
    return value


class LookUpSpec(Spec):
    """A further question that a method asks of the same encoding: a look-up with a dictionary of its own."""

    negatives: Annotated[Spec, Slot("negatives")]
    """The other entries of the dictionary."""
    targets: Annotated[Spec, Slot("targets")]
    """The entry or vector that the look-up should return."""
    loss: Annotated[Spec, Slot("loss")]
    """Measures the error of the look-up."""
    matches: Matches
    """Which query view looks up which key view, as ``method.matches``."""
    reduction: Literal["mean", "sum"] = "mean"
    """Whether the losses of the matches are averaged or summed."""
    weight: Rate = 1.0
    """Multiplies the loss: a number or a schedule."""
    of: _Output = IMAGE
    """The output of the encoder whose vectors are looked up."""

    _matches_are_readable = field_validator("matches")(_check_matches)


class MethodSpec(Spec):
    """A method: five slots, the views of a sample, and which query view looks up which key view. A method that asks
    several questions of one encoding has ``look_ups`` beside the one that its own slots make, which is called ``main``.
    """

    added = frozenset({"weight", "of", "look_ups"})

    views: Annotated[Spec, Slot("views")]
    """The views of a sample."""
    encoder: Annotated[Spec, Slot("encoder")]
    """Encodes a view as a query."""
    key_encoder: Annotated[Spec, Slot("key_encoder")]
    """Encodes a view as a key."""
    negatives: Annotated[Spec, Slot("negatives")]
    """The other entries of the dictionary."""
    targets: Annotated[Spec, Slot("targets")]
    """The entry or vector that the look-up should return."""
    loss: Annotated[Spec, Slot("loss")]
    """Measures the error of the look-up."""
    matches: Matches
    """Which query view looks up which key view: ``self`` (view 0 its own key), ``forward`` (view 0 looks up view 1),
    ``every`` (every view looks up every other key view), or a list such as ``["0->1", "1->0"]``."""
    reduction: Literal["mean", "sum"] = "mean"
    """Whether the losses of the matches are averaged or summed."""
    weight: Rate = 1.0
    """Multiplies the loss of the method's own look-up: a number or a schedule."""
    of: _Output = IMAGE
    """The output of the encoder whose vectors the method's own look-up looks up."""
    look_ups: dict[_Name, LookUpSpec] = {}
    """Further look-ups of the same encoding, by names of your own."""

    _matches_are_readable = field_validator("matches")(_check_matches)

    @field_validator("look_ups")
    @classmethod
    def _names_are_free(cls, value: dict[str, LookUpSpec]) -> dict[str, LookUpSpec]:
        if MAIN in value:
            raise ValueError(f"{MAIN} is the name of the look-up that the method's own slots make; choose another")
        return value

    _written = leave_out_defaults("weight", "of", "look_ups")

    def questions(self) -> dict[str, LookUpSpec | MethodSpec]:
        """All look-ups by their names; the one that the method's own slots make is the first."""
        return {MAIN: self, **self.look_ups}


class ParamGroup(Spec):
    """Parameters that are trained differently. The first group that matches a parameter takes it."""

    match: str
    """``norm_and_bias`` (every parameter of one dimension), or a pattern of parameter names such as
    ``encoder.predictor.*``."""
    lr_scale: float = Field(1.0, gt=0, le=1e6)
    """Multiplies the learning rate of these parameters."""
    fixed_lr: bool = False
    """Whether the learning rate stays at the schedule's ``start``."""
    weight_decay: float | None = Field(None, ge=0, le=1e4)
    """The weight decay of these parameters; null is the optimiser's."""
    trust_ratio: bool = True
    """Whether LARS scales the step of these parameters; without it they get plain SGD."""
    layer_decay: bool = True
    """Whether the optimiser's ``layer_decay`` lowers their rate; not for what is new in a backbone."""
    frozen_epochs: float = Field(0.0, ge=0, le=1e6)
    """Number of first epochs in which the parameters do not change."""
    frozen_by: Literal["gradient", "rate"] = "gradient"
    """The way in which they do not change: they have no ``gradient`` (DINO), or a ``rate`` of 0, with which the
    optimiser's averages move already (DINOv2)."""
    added = frozenset({"frozen_by"})

    _written = leave_out_defaults("layer_decay")

    def delays(self) -> list[Delay]:
        frozen = Delay("frozen_epochs", self.frozen_epochs, f"until then {self.match} does not move")
        return [frozen] if self.frozen_epochs else []


class LRScaling(Spec):
    """How the learning rate follows the *global* batch B: × B/per (``linear``), × √B/√per (``sqrt``), or not."""

    rule: Literal["none", "linear", "sqrt"] = "none"
    """``linear``: × B/per. ``sqrt``: × √B/√per. ``none``: the rate does not follow the batch."""
    per: int = Field(256, gt=0, le=2**24)
    """Samples of the batch that the rate is meant for."""

    def factor(self, batch: int) -> float:
        return {"none": 1.0, "linear": batch / self.per, "sqrt": float((batch / self.per) ** 0.5)}[self.rule]


class _Optimizer(Spec):
    """What optimisers share. ``states``: how many numbers one keeps for each parameter."""

    states: ClassVar[int] = 1
    lr: Rate
    """The learning rate before scaling: a number or a schedule."""
    scaling: LRScaling = LRScaling()
    """How the rate follows the batch."""
    weight_decay: Rate = 0.0
    """The weight decay: a number or a schedule."""
    groups: tuple[ParamGroup, ...] = ()
    """Parameters that are trained differently; the first group that matches takes one."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Multiplies the rate of a backbone's last block once, of the one before twice, and so on; what comes before the
    blocks counts as a block. Heads and the last norm have the whole rate. For backbones of numbered blocks (BEiT,
    arXiv:2106.08254; DINOv2)."""
    added = frozenset({"layer_decay"})


_Beta = Annotated[float, Field(ge=0, lt=1)]


class SGD(_Optimizer):
    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    """The weight of earlier gradients."""
    nesterov: bool = False
    """Whether the momentum is Nesterov's."""


class AdamW(_Optimizer):
    states = 2
    kind: Literal["adamw"] = "adamw"
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    """The weights of earlier gradients and of their squares."""
    eps: float = Field(1e-8, gt=0, le=1)
    """A small number that is added to the denominator."""


class Adam(_Optimizer):
    """Adam with L2 regularisation in the gradient (Kingma & Ba, 2015), where AdamW decouples it."""

    states = 2
    kind: Literal["adam"] = "adam"
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    """The weights of earlier gradients and of their squares."""
    eps: float = Field(1e-8, gt=0, le=1)
    """A small number that is added to the denominator."""


class LARS(_Optimizer):
    """SGD whose step in each layer follows ‖weights‖/‖gradient‖ (You et al., 2017)."""

    kind: Literal["lars"] = "lars"
    momentum: float = Field(0.9, ge=0, lt=1)
    """The weight of earlier steps."""
    trust: float = Field(0.001, gt=0, le=1e3)
    """The trust coefficient: a layer's step over the length of its weights."""
    variant: Literal["lars", "tf", "larc"] = "lars"
    """``lars``: g ← g+wd·p, scaled by trust·‖p‖/‖g‖, momentum, LR last (MoCo v3, BYOL, Barlow Twins). ``tf``: the same
    with LR and trust inside the momentum buffer (SimCLR). ``larc``: trust·‖p‖/(‖g‖+wd·‖p‖+1e-8) on the gradient before
    momentum (apex, unclipped: SwAV)."""


Optimizer = Annotated[SGD | AdamW | Adam | LARS, Field(discriminator="kind")]


class CheckpointSpec(Spec):
    """When a checkpoint is saved, and which are kept."""

    every: int = Field(10, gt=0, le=10**6)
    """Epochs from one checkpoint to the next; the end is always saved."""
    every_steps: int | None = Field(None, gt=0, le=10**12)
    """Steps from one checkpoint to the next, beside those of ``every``; null: none."""
    keep_last: int = Field(2, gt=0, le=10**6)
    """Newest checkpoints that are kept."""
    keep_every: int | None = Field(None, gt=0, le=10**6)
    """Checkpoints of epochs that are multiples of it are kept for good; null: none."""
    best: str | None = None
    """A metric of ``metrics.jsonl``, such as ``knn_top1`` or ``loss``: of the checkpoints that were saved, the best by
    it is kept; null: none."""
    best_is: Literal["highest", "lowest"] = "highest"
    """Whether the best value of ``best`` is the highest or the lowest."""

    @model_validator(mode="after")
    def _a_loss_is_best_low(self) -> CheckpointSpec:
        if self.best == "loss" and self.best_is == "highest":
            raise ValueError("the best loss is the lowest; add best_is: lowest")
        return self


class TrainSpec(Spec):
    """How the method is trained."""

    added = frozenset({"clip_parts"})
    epochs: int = Field(gt=0, le=10**6)
    """The number of times that each sample is seen."""
    max_steps: int | None = Field(None, gt=0, le=10**12)
    """Optimiser steps of a shorter run, whose schedules end there; null: all epochs."""
    batch_size: int = Field(gt=0, le=2**24)
    """Samples of a step over all processes: the same on any number of them."""
    micro_batch: int | None = Field(None, gt=0, le=2**24)
    """The most samples that each process encodes at once (gradient caching): the look-up, the gradient and the step are
    those of the whole batch, in the memory of a micro-batch, for about a third more time. BatchNorm's statistics are
    then of a micro-batch; null: each process encodes its whole part."""
    accumulate: int = Field(1, gt=0, le=2**16)
    """The number of smaller batches that a batch is divided into, each with a look-up of its own, whose gradients make
    one optimiser step (gradient accumulation): their mean is taken. A query meets the keys of its own part alone, so
    this is no larger contrastive batch, as ``micro_batch`` is; it is for methods that compare no samples, and for
    batches whose look-up does not fit."""
    optimizer: Optimizer
    """The optimiser, with its learning rate."""
    batch_norm: Literal["sync", "local"] | Annotated[int, Field(gt=1, le=2**24)] = "local"
    """Over which samples BatchNorm's statistics are taken: ``sync`` the batch of all processes; ``local`` each
    process's part; a number n: groups of n samples, as if n were the batch of one device, which is the same on one
    process and on many."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The type in which the networks compute; the look-up is always in float32. ``fp16`` needs a GPU."""
    clip: float | None = Field(None, gt=0, le=1e9)
    """The largest norm of the gradient; null: it is not clipped."""
    clip_each: bool = False
    """Whether ``clip`` bounds each parameter's gradient separately, not the norm of all together."""
    clip_parts: tuple[tuple[str, ...], ...] = ()
    """Parts of the network whose gradients ``clip`` bounds each by its own norm, as patterns of parameter names, such
    as ``[[encoder.backbone.*], [encoder.projector.*, negatives.*]]`` (DINOv2); what no part has is one more."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Every random number of the run is a function of it."""
    workers: int | None = Field(None, ge=0, le=1024)
    """Processes that load data, for each process that trains; null chooses by the cores and the device."""
    cache: Literal["none", "memory"] = "none"
    """Whether decoded images to train on stay in ``memory``, which all workers share, so that each is read once: for
    many small images. At most a quarter of the free memory is filled; other images are read each time. Views do not
    depend on it. Not on macOS and Windows, where workers are not forked."""
    threads: int | None = Field(None, gt=0, le=1024)
    """Threads in which the CPU computes; null obeys ``OMP_NUM_THREADS``, or keeps the number with which the first steps
    of a run on the CPU are fastest. Results depend on it in the rounding of floats alone."""
    channels_last: bool | None = None
    """Whether weights and outputs of two-dimensional convolutions lie in memory with the channels of a pixel together
    (NHWC); null: on the CPU and on GPUs of CUDA. Results depend on it in the rounding of floats alone."""
    compile: bool = False
    """Whether ``torch.compile`` compiles the encoders, which takes minutes at the start and needs a C++ compiler.
    Results depend on it in the rounding of floats alone."""
    log_every: int = Field(10, gt=0, le=10**12)
    """Steps from one line of ``metrics.jsonl`` to the next."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When a checkpoint is saved, and which are kept."""
    trackers: tuple[str, ...] = ()
    """Trackers of Accelerate's that get the metrics as well, such as tensorboard."""
    on_hook_error: Literal["stop", "warn"] = "stop"
    """The reaction to a plugin's hook that raises: ``stop`` the run with a checkpoint, or ``warn`` once
    and continue."""
    on_bad_loss: Literal["stop", "skip"] = "stop"
    """The reaction to a loss that is not finite: ``stop`` the run, or ``skip`` the step, as if there had been no such
    batch, and count it. To ``skip``, each step waits for its loss, which takes time on a GPU."""

    @model_validator(mode="after")
    def _parts_make_a_batch(self) -> TrainSpec:
        micro, whole = self.micro_batch, self.look_up_size
        name = "batch_size" if self.accumulate == 1 else "batch_size / accumulate"
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate is {self.accumulate}, which does not divide batch_size ({self.batch_size}); set "
                f"accumulate to {math.gcd(self.accumulate, self.batch_size)}"
            )
        if micro is not None and micro > whole:
            raise ValueError(f"micro_batch is {micro}, which is larger than {name} ({whole}); set micro_batch to null")
        if micro is not None and whole % micro:
            raise ValueError(
                f"micro_batch is {micro}, which does not divide {name} ({whole}); set micro_batch to "
                f"{math.gcd(micro, whole)}"
            )
        return self

    @property
    def look_up_size(self) -> int:
        """Samples that are looked up together, over all processes."""
        return self.batch_size // self.accumulate

    def samples_at_once(self, processes: int) -> int:
        """How many samples each of so many processes encodes at once."""
        own = self.look_up_size // processes
        return own if self.micro_batch is None else min(self.micro_batch, own)

    @model_validator(mode="after")
    def _clips_to_something(self) -> TrainSpec:
        if self.clip_each and self.clip is None:
            raise ValueError("clip_each says how clip is meant, and there is no clip; set clip, or take clip_each out")
        if self.clip_parts and (self.clip is None or self.clip_each):
            raise ValueError(
                "clip_parts says how clip is meant, instead of clip_each; set clip, and clip_each to false"
            )
        return self


class KNNSpec(Spec):
    """Weighted nearest neighbours as InstDisc's (section 3.4): each of the ``k`` nearest training features votes for
    its class with weight exp(cosine/temperature).
    """

    k: int = Field(200, gt=0, le=10**7)
    """Neighbours that vote."""
    temperature: float = Field(0.07, ge=1e-4, le=1e3)
    """Divides the cosine of each neighbour; lower counts the nearest more."""
    features: Literal["backbone", "embedding"] = "backbone"
    """The vectors that are compared: the ``backbone``'s features, or the ``embedding`` that is looked up."""
    every: int | None = Field(None, gt=0, le=10**6)
    """Epochs between evaluations; null: only at the end."""
    baselines: bool = True
    """Whether raw pixels and the untrained encoder are evaluated as well, once."""


class LinearSpec(Spec):
    """A linear probe: logistic regression on the frozen encoder's features of the plain images, extracted once,
    so without augmentation. The objective is the mean cross-entropy + ``weight_decay``/2 · ‖weight‖², minimised by
    L-BFGS and Newton's method in at most ``iterations`` passes over the features: no learning rate and no chance.
    """

    weight_decay: float = Field(1e-3, gt=0, le=1e6)
    """The weight of ‖weight‖²/2 in the objective."""
    standardize: bool = True
    """Whether each feature is brought to mean 0 and standard deviation 1 over the training samples."""
    iterations: int = Field(1000, gt=0, le=10**6)
    """The most passes over the features."""
    features: Literal["backbone", "embedding"] = "backbone"
    """The vectors that are classified: the ``backbone``'s features, or the ``embedding`` that is looked up."""
    every: int | None = Field(None, gt=0, le=10**6)
    """Epochs between evaluations; null: only at the end."""
    baselines: bool = True
    """Whether raw pixels and the untrained encoder are evaluated as well, once."""


class ClassifySpec(Spec):
    """How often the class with the highest logit is right on the test split, where the encoder's vectors are logits."""

    every: int | None = Field(None, gt=0, le=10**6)
    """Epochs between evaluations; null: only at the end."""


class EvalSpec(Spec):
    knn: KNNSpec | None = KNNSpec()
    """Weighted nearest neighbours; null: not evaluated."""
    linear: LinearSpec | None = None
    """A linear probe; null: not evaluated."""
    classify: ClassifySpec | None = None
    """Accuracy of an encoder whose vectors are logits; null: not evaluated."""
    batch_size: int = Field(256, gt=0, le=2**24)
    """Images that are encoded at once during evaluation."""


class CodeFile(Spec):
    """A Python file that is run for its hooks, and what its text was, so that a changed file is noticed."""

    file: str
    """The path of the Python file."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """The SHA-256 of the file's bytes, which a resumed run insists on."""


class InitSpec(Spec):
    """The source of the encoder's first weights, in place of random ones. A resumed run does not read it."""

    checkpoint: Annotated[str, LocalPath()]
    """A run's folder or checkpoint. Every tensor of its query encoder is loaded that has the name and the shape of one
    of this run's."""
    skip: tuple[str, ...] = ()
    """Patterns of names that are not loaded, such as ``projector.3.*``."""


class RunSpec(Spec):
    """A complete run. ``name``, ``summary`` and ``paper`` are for people."""

    schema_: Literal[1] = Field(alias="schema")
    """The version of the recipe format."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """The name of the run: small letters, digits, dots, hyphens and underscores."""
    summary: str = ""
    """One line for people."""
    paper: str = ""
    """The paper and its code, for people."""
    code: tuple[CodeFile, ...] = ()
    """Python files whose hooks take part as a plugin's would, see :mod:`contralex.recipes.code_files`."""
    plugins: tuple[PluginUse, ...] = ()
    """Distributions whose life-cycle hooks take part, beside hooks that belong to a kind that is used: a name, or
    ``{name: ..., ...}`` with the plugin's settings."""
    init: InitSpec | None = None
    """The source of the encoder's first weights; null: they are random."""
    method: MethodSpec
    """The five slots, the views and the matches."""
    data: Annotated[Spec, Slot("data")]
    """The data to train and evaluate on."""
    train: TrainSpec
    """How the method is trained."""
    eval: EvalSpec = EvalSpec()
    """How the encoder is evaluated, during training and at its end."""

    @model_validator(mode="after")
    def _fits(self) -> RunSpec:
        check_once(self.plugins)
        check(self)
        return self

    def matches(self, question: str = MAIN) -> list[tuple[int, int]]:
        """The matches of a look-up written out: (query view, key view)."""
        named = self.method.questions()[question].matches
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
