"""Optimisers with the parameter groups of the papers, and schedules set before every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from contralex.compat import add_each, add_products, move_with_momentum, multiply_each, step_fused
from contralex.errors import ContralexError
from contralex.lookup.clock import Clock, value_at
from contralex.lookup.sharded_tensors import measure_norms, own_part
from contralex.recipes import run_spec as specs
from contralex.recipes.schedules import Cosine, Linear, Number, Steps
from contralex.training.layer_rates import layer_scales

NORM_AND_BIAS = "norm_and_bias"
_LARC_EPS = 1e-8  # apex's; it counts where a gradient is as small, such as that of a bias before BatchNorm


def build(spec: specs.Optimizer, model: nn.Module, *, fused: bool = False) -> Optimizer:
    """The optimiser over the model's trainable parameters. What follows a schedule is set by :func:`set_rates`.

    ``fused``: one kernel takes the whole step of many parameters, see :func:`can_fuse`.
    """
    groups = _groups(spec, model)
    if spec.kind == "lars":
        return LARS(groups, momentum=spec.momentum, trust=spec.trust, variant=spec.variant)
    if spec.kind == "sgd":
        sgd = FusedSGD if fused else SGD
        # Nesterov is refused by torch without momentum, with a sentence of its own.
        return sgd(groups, lr=0.0, momentum=spec.momentum, nesterov=spec.nesterov, fused=fused or None)
    kind = Adam if spec.kind == "adam" else AdamW
    optimizer = kind(groups, lr=0.0, betas=spec.betas, eps=spec.eps, fused=fused or None)
    if fused:
        optimizer.register_step_pre_hook(_prepare_fused_step)
    return optimizer


def can_fuse(model: nn.Module, device: str, precision: str) -> bool:
    """Whether torch's fused kernels take the step of this model's parameters on a ``device`` of this type.

    From torch 2.4 on, CPUs and CUDA have them, for floating-point parameters. With ``fp16`` they would decide on the
    device whether a step whose gradient overflowed is left out, and the key encoder and the dictionary, which are left
    alone then, would not know.
    """
    real = all(parameter.is_floating_point() for parameter in model.parameters() if parameter.requires_grad)
    return real and device in ("cpu", "cuda") and precision != "fp16"


def _prepare_fused_step(optimizer: Optimizer, *_: Any) -> None:
    """Bring what the optimiser keeps into the form that the fused kernels take for granted: they go through a
    parameter's tensors in one order, and a checkpoint's are contiguous where the parameter may be channels-last."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                match_layout(parameter, optimizer.state[parameter])


def _velocity(optimizer: Optimizer, parameter: Tensor) -> Tensor:
    """The momentum of a parameter, laid out as that. One of zero makes the same first step as none, and a parameter may
    move for the first time later than the rest of its group."""
    state = optimizer.state[parameter]
    velocity: Tensor | None = state.get("momentum_buffer")
    if velocity is None:
        velocity = state["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    elif velocity.stride() != parameter.stride():
        match_layout(parameter, state)
        velocity = state["momentum_buffer"]
    return velocity


def match_layout(parameter: Tensor, state: dict[str, Any]) -> None:
    """Lay out what an optimiser keeps of a parameter as that lies in memory. Autograd does so with gradients, and a
    checkpoint's tensors are contiguous, where the parameter may be channels-last."""
    layout = parameter.stride()
    for name, value in state.items():
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != layout:
            state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def set_rates(optimizer: Optimizer, spec: specs.Optimizer, clock: Clock, batch: int) -> float:
    """Sets every group's learning rate and weight decay for this step, and returns the schedule's rate.

    The rate depends on the *global* batch alone, never on how many processes share it.
    """
    scale = spec.scaling.factor(batch)
    rate = value_at(spec.lr, clock) * scale
    decay = value_at(spec.weight_decay, clock)
    for group in optimizer.param_groups:
        own: specs.ParamGroup | None = group["spec"]
        group["lr"], group["weight_decay"] = rate * group["layer_scale"], decay
        if own is None:
            continue
        group["lr"] = own.lr_scale * group["layer_scale"] * (_start(spec.lr) * scale if own.fixed_lr else rate)
        if own.frozen_by == "rate" and clock.at("step") < own.frozen_epochs:
            group["lr"] = 0.0
        if own.weight_decay is not None:
            group["weight_decay"] = own.weight_decay
    return rate


def drop_frozen_gradients(optimizer: Optimizer, clock: Clock) -> None:
    """Takes the gradients of parameters away that do not move yet (SwAV's prototypes in the first epoch).

    None, not zero: with zero, momentum and weight decay would still move them.
    """
    for group in optimizer.param_groups:
        own: specs.ParamGroup | None = group["spec"]
        if own is not None and own.frozen_by == "gradient" and clock.at("step") < own.frozen_epochs:
            for parameter in group["params"]:
                parameter.grad = None


def clip_each(parameters: Iterable[Tensor], largest: float) -> None:
    """Shortens each parameter's gradient to the norm ``largest``, by itself (DINO's code)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        _shorten(gradients, measure_norms(gradients), largest)


def clip_norm(parameters: Iterable[Tensor], largest: float) -> None:
    """Shortens the gradient of all parameters together to the norm ``largest``; they may be sharded."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        _shorten(gradients, measure_norms(gradients).norm().expand(len(gradients)), largest)


def clip_parts(model: nn.Module, parts: Sequence[Sequence[str]]) -> list[list[Tensor]]:
    """The trainable parameters of each part, and of the rest, if there is one. ``parts``: patterns of names; the first
    that matches holds. Raises where a part has none."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    found: list[list[Tensor]] = [[] for _ in (*parts, "rest")]
    for name, parameter in named:
        has = (any(fnmatchcase(name, pattern) for pattern in patterns) for patterns in parts)
        found[next((place for place, is_in in enumerate(has) if is_in), len(parts))].append(parameter)
    for place, patterns in enumerate(parts):
        if not found[place]:
            raise ContralexError(
                f"train.clip_parts.{place}: {', '.join(patterns)} matches no trainable parameter that an earlier part "
                f"has not taken; the parameters lie in {_modules(model)}."
            )
    return found if found[-1] else found[:-1]


def _shorten(gradients: Sequence[Tensor], norms: Tensor, largest: float) -> None:
    parts = [own_part(gradient) for gradient in gradients]
    multiply_each(parts, list((largest / (norms + 1e-6)).clamp(max=1.0)))


def _groups(spec: specs.Optimizer, model: nn.Module) -> list[dict[str, Any]]:
    scales = layer_scales(model, spec.layer_decay)
    taken: dict[int, list[tuple[str, Tensor]]] = {}
    rest: list[tuple[str, Tensor]] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        for place, group in enumerate(spec.groups):
            if _matches(group.match, name, parameter):
                taken.setdefault(place, []).append((name, parameter))
                break
        else:
            rest.append((name, parameter))
    for place, group in enumerate(spec.groups):
        if place not in taken:
            raise ContralexError(
                f"train.optimizer.groups.{place}.match: {group.match!r} matches no trainable parameter that an earlier "
                f"group has not taken; the parameters lie in {_modules(model)}."
            )
    divided: list[tuple[specs.ParamGroup | None, list[tuple[str, Tensor]]]] = [
        *((group, taken[place]) for place, group in enumerate(spec.groups)),
        (None, rest),  # empty where the groups above took all
    ]
    return [
        {
            "params": [parameter for name, parameter in named if own.get(name, 1.0) == scale],
            "spec": group,
            "trust_ratio": group is None or group.trust_ratio,
            "layer_scale": scale,
        }
        for group, named in divided
        for own in [scales if group is None or group.layer_decay else {}]
        for scale in sorted({own.get(name, 1.0) for name, _ in named})
    ]


def _modules(model: nn.Module) -> str:
    return ", ".join(sorted({name.rsplit(".", 1)[0] for name, p in model.named_parameters() if p.requires_grad}))


def _matches(pattern: str, name: str, parameter: Tensor) -> bool:
    return parameter.dim() <= 1 if pattern == NORM_AND_BIAS else fnmatchcase(name, pattern)


def _start(number: Number) -> float:
    return number.start if isinstance(number, Cosine | Linear | Steps) else number


class FusedSGD(SGD):
    """torch's SGD, whose fused kernel is called directly: what torch does around it in Python takes longer than the
    step of a small network."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        if closure is not None:
            raise ContralexError("The fused SGD does not take a closure.")
        for group in self.param_groups:
            moved = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
            if not moved:
                continue
            momentum = group["momentum"]
            step_fused(
                [parameter for parameter, _ in moved],
                [gradient for _, gradient in moved],
                [_velocity(self, parameter) for parameter, _ in moved] if momentum else [],
                rate=group["lr"],
                decay=group["weight_decay"],
                momentum=momentum,
                nesterov=group["nesterov"],
            )
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al., 2017, arXiv:1708.03888), in the three forms in use.

    ``lars``: g ← g + wd·p; g ← trust·‖p‖/‖g‖·g; v ← m·v + g; p ← p − lr·v   (MoCo v3, BYOL, Barlow Twins)
    ``tf``:   g ← g + wd·p; v ← m·v + lr·trust·‖p‖/‖g‖·g; p ← p − v            (SimCLR)
    ``larc``: g ← trust·‖p‖/(‖g‖ + wd·‖p‖ + 1e-8)·(g + wd·p); then as lars          (apex LARC, not clipped: SwAV)

    The ratio is 1 where either norm is 0 (``larc`` then leaves out the decay, too), and in groups whose
    ``trust_ratio`` is false. A step uses the gradients up: afterwards they hold the updates.
    """

    def __init__(self, params: Iterable[Any], momentum: float, trust: float, variant: str) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": 0.0, "trust_ratio": True})
        self.momentum, self.trust, self.variant = momentum, trust, variant

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        if closure is not None:
            raise ContralexError("LARS does not take a closure.")
        for group in self.param_groups:
            if parameters := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self._move(parameters, group)
        return None

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        updates = [own_part(parameter.grad) for parameter in parameters if parameter.grad is not None]
        parts = [own_part(parameter) for parameter in parameters]
        decay, rate = group["weight_decay"], group["lr"]
        before, after = (rate, 1.0) if self.variant == "tf" else (1.0, rate)  # where the rate stands
        if group["trust_ratio"]:
            self._scale(parameters, parts, updates, decay, before)
        else:
            add_each(updates, parts, decay)
            if before != 1.0:
                multiply_each(updates, [parts[0].new_tensor(before)] * len(updates))
        velocities = [own_part(_velocity(self, each)) for each in parameters]
        move_with_momentum(parts, updates, velocities, self.momentum, after)

    def _scale(
        self, parameters: list[Tensor], parts: list[Tensor], updates: list[Tensor], decay: float, before: float
    ) -> None:
        """Turn the gradients in ``updates`` into updates, with the trust ratio of each. ``parts``: of the parameters,
        this process's."""
        is_larc = self.variant == "larc"
        if not is_larc:
            add_each(updates, parts, decay)
        whole = [parameter.grad for parameter in parameters if parameter.grad is not None]  # which share their memory
        weights, gradients = measure_norms(parameters), measure_norms(whole)
        scale = gradients + decay * weights + _LARC_EPS if is_larc else gradients
        trust = self.trust * weights / scale.clamp_min(torch.finfo(scale.dtype).tiny)
        has_ratio = (weights > 0) & (gradients > 0)
        factors = torch.where(has_ratio, trust, 1.0) * before
        multiply_each(updates, list(factors))
        if is_larc:  # apex does not even decay weights without a ratio
            add_products(updates, parts, list(torch.where(has_ratio, decay * trust, 0.0)))
