"""Checks on one process: what a step computes, where its gradients go, and what it leaves alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from contralex.errors import ContralexError
from contralex.lookup.step import LookUp
from contralex.lookup.values import Rows, Targets
from contralex.lookup.view import map_pixels
from contralex.testing import global_state
from contralex.testing.check_errors import Failed, NotApplicable, find_line
from contralex.testing.trials import BATCH, SEEDS, Trial

T = TypeVar("T")


def builds_alike(trial: Trial) -> None:
    """The part builds on the CPU, fits with parts of the core, and its weights are a function of the seed."""
    if not trial.data:
        raise Failed(trial.why)
    one, other = trial.build().state_dict(), trial.build().state_dict()
    check_equal(one, other, "a second build has another {}: weights must be drawn from torch's generator alone")
    if torch.equal(trial.generator_after_build(1), trial.generator_after_build(2)):
        raise Failed(
            "making the part seeds torch's generator, so weights do not follow train.seed; draw from the generator as "
            "it is"
        )


def finite_loss(trial: Trial) -> None:
    """The loss of an ordinary batch is one finite number in float32."""
    model = trial.build()
    # Each match's own, because their sum would be one number in any case.
    model.loss.register_forward_hook(lambda part, given, loss: _one_number(loss, "the loss of an ordinary batch"))
    found = trial.forward(model, trial.moment(0))
    _one_number(found.loss, "the loss of an ordinary batch")
    if not 0 <= float(found.accuracy) <= 1:
        raise Failed(f"the look-up's accuracy is {float(found.accuracy)}, and a share lies in [0, 1]")


def degenerate_input(trial: Trial) -> None:
    """Constant images, one image many times, zero and equal vectors, and a batch of one sample give a finite loss
    and finite gradients, or are refused with a ContralexError. What belongs to pixels, such as a mask, stays."""
    first = {view: images[:1] for view, images in trial.views.items()}
    batches = {
        "constant inputs": {view: map_pixels(torch.zeros_like, images) for view, images in trial.views.items()},
        "one sample in every place": {view: map_pixels(_repeat_first, images) for view, images in trial.views.items()},
    }
    for name, views in batches.items():
        with _refusals(name):
            model = trial.build()
            loss = trial.forward(model, trial.moment(0), views).loss
            _one_number(loss, f"the loss of {name}")
            _finite_gradients(model, loss, name)
    for name, change in _DEGENERATE.items():
        with _refusals(name):
            _degenerate_rows(trial, name, change)
    if not trial.whole_recipe:  # a recipe may have BatchNorm, which has no statistics of one sample
        with _refusals("a batch of one sample"):
            model = trial.build()
            loss = model(first, trial.sample[:1], replace(trial.moment(0), batch=1)).loss
            _one_number(loss, "the loss of a batch of one sample")


_DEGENERATE: dict[str, Callable[[Tensor], Tensor]] = {
    "zero vectors": torch.zeros_like,
    "equal vectors": lambda vectors: vectors[:1].expand_as(vectors),
    "huge vectors": lambda vectors: vectors * 1e4,
}


def _repeat_first(images: Tensor) -> Tensor:
    return images[:1].expand_as(images)


def _degenerate_rows(trial: Trial, name: str, change: Callable[[Tensor], Tensor]) -> None:
    if name == "huge vectors" and _unit_length(trial):
        return  # cannot happen: the encoder brings its vectors to unit length
    model, moment = trial.build(), trial.moment(0)
    with torch.no_grad():
        queries, keys = trial.rows(model, moment)
    asked = change(queries.vectors).clone().requires_grad_()
    found = model.look_up(replace(queries, vectors=asked), replace(keys, vectors=change(keys.vectors)), moment)
    _one_number(found.loss, f"the loss of {name}")
    found.loss.backward()
    if asked.grad is not None and not asked.grad.isfinite().all():
        raise Failed(f"the gradient of the queries is not finite where there are {name}")


def _unit_length(trial: Trial) -> bool:
    return "unit length" in trial.spec.method.encoder.offers()


def gradients_arrive(trial: Trial) -> None:
    """Within three steps every trainable parameter gets a gradient, and no parameter of the key encoder's own."""
    model = trial.build()
    optimizer = trial.optimizer(model)
    waiting = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for number in range(3):  # a branch that starts at zero lets gradients through only after it has moved
        optimizer.zero_grad()
        found = trial.forward(model, trial.moment(number))
        found.loss.backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        waiting -= moved
        teacher = {name: p.clone() for name, p in model.key_encoder.named_parameters()}
        optimizer.step()
        for name, parameter in model.key_encoder.named_parameters():
            if parameter.requires_grad:
                raise Failed(f"key_encoder.{name} is trainable; a teacher's parameters are not (requires_grad_(False))")
            if not torch.equal(parameter, teacher[name]):
                raise Failed(f"the optimiser's step moved key_encoder.{name}; a teacher moves in update() alone")
    if waiting:
        raise Failed(
            f"no gradient reaches {', '.join(sorted(waiting)[:5])}; freeze what is not trained, or leave it out"
        )


def no_gradient_leaks(trial: Trial) -> None:
    """Where the key encoder declares that keys carry no gradient, keys, targets and the key side's prototypes carry
    none."""
    model = trial.build()
    if model.key_encoder.gradient:
        raise NotApplicable("its keys carry a gradient, as they declare")
    seen: list[tuple[str, Tensor]] = []

    def targets(module: nn.Module, arguments: Any, found: Targets) -> None:
        seen.extend((f"targets.{name}", value) for name, value in found.tensors().items())

    def dictionary(module: nn.Module, arguments: Any, found: Any) -> None:
        if found.has_key_shared:
            seen.append(("dictionary.key_shared", found.key_shared))

    model.targets.register_forward_hook(targets)
    model.negatives.register_forward_hook(dictionary)
    moment = trial.moment(0)
    queries, keys = trial.rows(model, moment)
    seen.append(("keys.vectors", keys.vectors))
    model.look_up(queries, keys, moment)
    leaks = [name for name, value in seen if value.requires_grad]
    if leaks:
        raise Failed(f"{' and '.join(dict.fromkeys(leaks))} carries a gradient; compute it under torch.no_grad()")


def looks_up_before_it_writes(trial: Trial) -> None:
    """The look-up writes nothing: what changes, changes in update(), once, after the optimiser's step. A queue that is
    written before has the positive among its negatives."""
    model = trial.build()
    trial.advance(model, trial.optimizer(model), 0)  # the first look-up may set a normaliser
    trial.rows(model, trial.moment(1))  # a source may bring prototypes and their twins to unit length before each step
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.1)  # far from a teacher, so that it shows if that follows
    teacher = {f"key_encoder.{name}": p.clone() for name, p in model.key_encoder.named_parameters()}
    moment = trial.moment(1)
    queries, keys = trial.rows(model, moment)
    now = {f"key_encoder.{name}": p.detach() for name, p in model.key_encoder.named_parameters()}
    check_close(teacher, now, "encoding, and not update(), moved the key encoder")
    before = copy_state(model)
    first, again = (
        model.look_up(queries, keys, replace(moment, cache=dict(moment.cache))).loss  # each as the first of its step
        for _ in range(2)
    )
    check_equal(before, model.state_dict(), "the look-up itself changed {}; write it in update()")
    if not torch.equal(first, again):
        raise Failed(f"the same look-up gave {float(first)} and then {float(again)}; it keeps something outside state")


def answers_with_its_own_key(trial: Trial) -> None:
    """A query whose key is absent is not answered with another sample's: the part raises, or leaves the query out. The
    number below 0 that find_in() returns for it would be, as an index, one of the last rows."""
    model, moment = trial.build(), trial.moment(0)
    queries, keys = trial.rows(model, moment)
    with _absent_is_no_index():
        try:
            model.look_up(queries, keys[keys.sample != trial.sample[0]], moment)
        except IndexError as error:
            raise Failed(
                f"a query without a key is answered with another row at {find_line(error)}; "
                "keys.select_matching(queries, match) raises where there is none"
            ) from None
        except Exception:
            return  # that is what it should do


@contextmanager
def _absent_is_no_index() -> Iterator[None]:
    """Within, what find_in() returns for an absent row is not only below 0, but out of range: indexing raises."""
    found = Rows.find_in

    def find_in(rows: Rows, others: Rows, *, same_view: bool) -> Tensor:
        place = found(rows, others, same_view=same_view)
        return torch.where(place < 0, -len(others) - 1, place)

    with patch.object(Rows, "find_in", find_in):
        yield


def integer_buffers(trial: Trial) -> None:
    """update() keeps the dtype of all state, and mixes no integer buffers (BatchNorm's counter) with others."""
    model = trial.build()
    trial.advance(model, trial.optimizer(model), 0)
    online, teacher = (
        {name: b for name, b in module.named_buffers() if not b.is_floating_point()}
        for module in (model.encoder, model.key_encoder)
    )
    for buffers, value in ((online, 1_000_000), (teacher, 10)):  # far apart: momentum may be near 1
        for buffer in buffers.values():
            buffer.fill_(value)
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    moment = trial.moment(1)
    found = trial.forward(model, moment)
    counts = {name: buffer.clone() for name, buffer in teacher.items()}
    reference = {int(b.flatten()[0]) for b in online.values() if b.numel()}
    model.update(found.keys, moment)
    changed = [name for name, tensor in model.state_dict().items() if tensor.dtype != types[name]]
    if changed:
        raise Failed(f"update() changed the dtype of {', '.join(changed)}")
    for name, buffer in model.key_encoder.named_buffers():
        if name in counts and not torch.equal(buffer, counts[name]) and int(buffer.flatten()[0]) not in reference:
            raise Failed(
                f"update() averaged the integer buffer key_encoder.{name}; average parameters, and copy buffers or "
                "leave them"
            )


def split_equals_whole(trial: Trial) -> None:
    """Encoding in two micro-batches gives the loss and the gradients of the whole batch, so that train.micro_batch
    holds. (BatchNorm is in evaluation mode: its statistics are of a whole batch by nature.)"""
    check_each(_split_equals_whole, [trial.with_seed(seed) for seed in SEEDS])


def _split_equals_whole(trial: Trial) -> None:
    whole, split = (_loss_and_gradients(trial, size) for size in (None, BATCH // 2))
    check_close(whole, split, "split and whole differ")


def _loss_and_gradients(trial: Trial, micro_batch: int | None) -> dict[str, Tensor]:
    model = trial.build().eval()
    loss = trial.forward(model, replace(trial.moment(0), micro_batch=micro_batch)).loss
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


def half_precision(trial: Trial) -> None:
    """Under bf16 autocast the loss is in float32 and near that of float32; under fp16, where 1e-8 is zero, it is
    finite on ordinary and on constant input."""
    model, moment = trial.build(), trial.moment(0)
    queries, keys = trial.rows(model, moment)
    with _ArithmeticInHalf() as watch:
        exact = float(model.look_up(queries, keys, moment).loss.detach())
    if watch.seen:
        raise Failed(f"the look-up computes {' and '.join(dict.fromkeys(watch.seen))}; compute it in float32")
    with torch.autocast("cpu", torch.bfloat16):
        rough = trial.forward(trial.build(), trial.moment(0)).loss
    _one_number(rough, "the loss under bf16")
    if abs(float(rough.detach()) - exact) > 0.1 * max(1.0, abs(exact)):
        raise Failed(
            f"the loss is {exact:.4f} in float32 and {float(rough.detach()):.4f} under bf16; compute it in float32"
        )
    constant = {view: map_pixels(torch.zeros_like, images) for view, images in trial.views.items()}
    with torch.autocast("cpu", torch.float16):
        for name, views in {"ordinary input under fp16": None, "constant input under fp16": constant}.items():
            with _refusals(name):
                _one_number(trial.forward(trial.build(), trial.moment(0), views).loss, f"the loss of {name}")


def deterministic(trial: Trial) -> None:
    """Three steps give the same losses and state again in the same process, whatever the global generators hold:
    randomness comes from step.generator(), and nothing is kept outside the module."""
    runs = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            model = trial.build()
            torch.manual_seed(seed)
            random.seed(seed)
            optimizer = trial.optimizer(model)
            losses = {f"loss {n}": trial.advance(model, optimizer, n).loss.detach() for n in range(3)}
            runs.append({**losses, **copy_state(model)})
    check_equal(runs[0], runs[1], "a second run of three steps in this process has another {}")


def leaves_the_process_alone(trial: Trial) -> None:
    """Building and a step change nothing global: generators, default dtype, threads, grad mode, environment."""
    trial.optimizer(nn.Linear(1, 1))  # torch's first optimiser imports much, which sets a variable of its own
    _ = trial.views  # made here, because the check is not about them
    before = global_state.read_global_state()
    model = trial.build()
    trial.advance(model, trial.optimizer(model), 0)
    after = global_state.read_global_state()
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        raise Failed(f"it changed {', '.join(changed)} of the process")
    if model.training is False:
        raise Failed("the method was left in evaluation mode")


def check_each(check: Callable[[T], None], tries: Sequence[T]) -> None:
    """The check holds for one of the tries. A number that happens to lie at the kink of a ReLU makes another gradient
    of a difference in its last digit, but hardly with other weights as well."""
    failures = []
    for one in tries:
        try:
            return check(one)
        except Failed as failed:
            failures.append(failed)
    raise failures[0]


class _ArithmeticInHalf(TorchFunctionMode):
    """Sees sums, products and exponentials in half precision. To keep or copy vectors in it is no mistake."""

    _NAMES = frozenset(
        {"matmul", "rmatmul", "mm", "bmm", "einsum", "linear", "cdist", "norm", "vector_norm", "normalize"}
        | {"exp", "log", "log1p", "logsumexp", "softmax", "log_softmax", "sigmoid", "logsigmoid", "softplus"}
        | {"cross_entropy", "cosine_similarity", "sum", "mean", "var", "std"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").strip("_")
        if name in self._NAMES and isinstance(out, Tensor) and out.dtype in (torch.float16, torch.bfloat16):
            self.seen.append(f"{name} in {str(out.dtype).removeprefix('torch.')}")
        return out


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """A part may refuse input that it cannot treat, in a sentence. Any other error says which input it met."""
    try:
        yield
    except ContralexError:
        return
    except Failed:
        raise
    except Exception as error:
        error.add_note(f"on {name}")
        raise


def _one_number(loss: Tensor, what: str) -> None:
    if loss.dim() or loss.dtype != torch.float32:
        raise Failed(f"{what} is {loss.dtype} of shape {tuple(loss.shape)}, and should be one number in float32")
    if not loss.isfinite():
        raise Failed(f"{what} is {float(loss.detach())}")


def _finite_gradients(model: LookUp, loss: Tensor, what: str) -> None:
    loss.backward()
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    if bad:
        raise Failed(f"with {what}, the gradient of {', '.join(bad[:3])} is not finite")


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise Failed(
            f"its state has {', '.join(odd)}, which is no tensor; keep it in a buffer, so that it can be saved"
        )
    return {name: tensor.clone() for name, tensor in state.items()}


def check_equal(one: dict[str, Tensor], other: dict[str, Tensor], sentence: str) -> None:
    if one.keys() != other.keys():
        raise Failed(sentence.format(f"set of tensors ({', '.join(sorted(one.keys() ^ other.keys()))})"))
    for name, tensor in one.items():
        if not torch.equal(tensor, other[name]):
            raise Failed(sentence.format(name))


def check_close(one: dict[str, Tensor], other: dict[str, Tensor], sentence: str, rounding: float = 1e-4) -> None:
    """Equal to rounding in float32, which is relative to a tensor's largest value; an absent gradient counts as zero.
    What is no floating-point number is equal or not."""
    for name in dict.fromkeys([*one, *other]):
        left = one[name] if name in one else torch.zeros_like(other[name])
        right = other[name] if name in other else torch.zeros_like(left)
        if left.shape != right.shape:
            raise Failed(f"{sentence} in {name}, whose shapes are {tuple(left.shape)} and {tuple(right.shape)}")
        if torch.equal(left, right):
            continue
        if not left.is_floating_point():
            raise Failed(f"{sentence} in {name}, which is no floating-point number and must be the same")
        far, size = float((left.double() - right.double()).abs().max()), float(left.abs().max())
        if not far <= rounding * (size + 0.02):  # in this order, because no comparison with NaN holds
            raise Failed(f"{sentence} in {name}, by up to {far:.2g} where values reach {size:.2g}")
