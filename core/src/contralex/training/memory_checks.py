"""Whether the memory of this machine holds what a run asks for, known before it is taken.

Linux hands out more memory than there is, and ends a process that uses it without a word; so this asks first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from contralex import memory
from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed
from contralex.lookup.view import ViewBatch, pixels_of
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.sample_counts import halved, halved_micro_batch
from contralex.recipes.walk import walk

_LARGE = 2**24  # bytes: nothing smaller is asked about
_SPARE = 8  # of the memory that is left, the part that a number is advised for: there are gradients and copies, too
_MAKERS = frozenset(
    [
        *(torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange),
        *(torch.rand, torch.randn, torch.randint, torch.randperm),
        *(Tensor.new_empty, Tensor.new_zeros, Tensor.new_ones, Tensor.new_full),
    ]
)
# In the words of torch's allocators, and of a data worker that hands their text on.
_RAN_OUT = ("can't allocate memory", "not enough memory", "out of memory", "MemoryError")


class Guard(TorchFunctionMode):
    """While the part in ``slot`` is built: refuses a tensor that memory does not hold, before it is made."""

    def __init__(self, run: RunSpec, slot: str) -> None:
        super().__init__()
        self.run, self.slot = run, slot

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        outline = _outline(func, args, kwargs)
        if outline is not None and outline.nbytes > _LARGE:
            free = memory.available()
            if free is not None and outline.nbytes > free:
                what = f"a tensor of {_shape(outline)} numbers takes {memory.in_words(outline.nbytes)}"
                raise _refused(self.run, self.slot, what, outline, outline.nbytes, free)
        return func(*args, **kwargs)


def check_training(run: RunSpec, method: nn.Module, device: torch.device) -> None:
    """Refuses a method for whose gradients and optimiser there is no room, or which a GPU does not hold.

    Called where the method is built and still on the CPU.
    """
    parts = {name: sum(tensor.nbytes for tensor in _tensors(part)) for name, part in method.named_children()}
    learnt = sum(parameter.nbytes for parameter in method.parameters() if parameter.requires_grad)
    needed, free, where = learnt * (1 + run.train.optimizer.states), memory.available(), "memory"
    if device.type == "cuda":
        needed, free, where = needed + sum(parts.values()), torch.cuda.mem_get_info(device)[0], "the GPU's memory"
    if free is None or needed <= free:
        return
    largest = max(parts, key=lambda name: parts[name])
    tensor = max(_tensors(method.get_submodule(largest)), key=lambda each: each.nbytes)
    what = (
        f"it is the largest part of the method, with {memory.in_words(parts[largest])}, and training needs "
        f"{memory.in_words(needed)} more, with the gradients and what the optimiser keeps"
    )
    raise _refused(run, f"method.{largest}", what, tensor, needed, free, where)


def check_batch(run: RunSpec, views: Mapping[int, ViewBatch], workers: int) -> None:
    """Refuses a batch that memory does not hold. ``views`` are of some samples; each worker makes a batch at a time."""
    free, batch, world = memory.available(), run.train.batch_size, distributed.world()
    sample = sum(view[0].nbytes for view in views.values())
    needed = sample * (batch // world) * max(workers, 1)
    if free is None or needed <= free:
        return
    largest = max((pixels_of(view)[0] for view in views.values()), key=lambda view: view.nbytes)
    fitting = free // (2 * sample * max(workers, 1))  # on each process
    what = (
        f"the views of a sample take {memory.in_words(sample)}, the largest with {_shape(largest)} numbers, and the "
        f"batches of {batch:,} that are made at a time {memory.in_words(needed)} on each process"
    )
    if fitting < 2:
        raise _refused(run, "method.views", what, largest, needed, free)
    smaller = world * 2 ** (fitting.bit_length() - 1)
    raise ContralexError(
        f"train.batch_size is {batch}: {what}, which may have {memory.in_words(free)} of memory. Try:"
        + remedy("--set", f"train.batch_size={smaller}")
    )


@contextmanager
def explain_sample_memory(run: RunSpec, views: Mapping[int, ViewBatch]) -> Iterator[None]:
    """Around what is done with two samples, before a run begins: where memory runs out, one sentence says so."""
    with _one_sentence(lambda: _no_room_for_two(run, views)):
        yield


@contextmanager
def explain_batch_memory(run: RunSpec, step: Callable[[], int]) -> Iterator[None]:
    """Around the making of batches. ``step``: for which one it is, counted from 1."""
    with _one_sentence(lambda: _no_room_for_batch(run, step())):
        yield


@contextmanager
def explain_step_memory(run: RunSpec, step: int) -> Iterator[None]:
    """Around a step, which is counted from 1."""
    with _one_sentence(lambda: _no_room_for_step(run, step)):
        yield


def ran_out(error: Exception) -> bool:
    """Whether an error says that there is no memory left."""
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in _RAN_OUT)
    return isinstance(error, MemoryError)


@contextmanager
def _one_sentence(refusal: Callable[[], ContralexError]) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise refusal() from error


def _no_room_for_two(run: RunSpec, views: Mapping[int, ViewBatch]) -> ContralexError:
    largest = max((pixels_of(view)[0] for view in views.values()), key=lambda view: view.nbytes)
    return ContralexError(
        f"Memory ran out when two samples went through method.encoder; the largest view has {_shape(largest)} "
        f"numbers. {_advice(run, 'method.views', largest, _SPARE / 2)}"
    )


def _no_room_for_batch(run: RunSpec, step: int) -> ContralexError:
    sentence = f"Memory ran out in step {step}, with a train.batch_size of {run.train.batch_size}."
    smaller = halved(run.train.batch_size, distributed.world() * run.train.accumulate)
    if smaller is None:
        return ContralexError(f"{sentence} Choose a smaller encoder or smaller views.")
    return ContralexError(f"{sentence} Try:{remedy('--set', f'train.batch_size={smaller}')}")


def _no_room_for_step(run: RunSpec, step: int) -> ContralexError:
    micro = halved_micro_batch(run, distributed.world())
    if micro is None:
        return _no_room_for_batch(run, step)
    settings = ["--set", f"train.micro_batch={micro}"]
    if run.train.batch_norm == "sync":  # which has no statistics of a whole batch then
        settings += ["--set", f"train.batch_norm={micro}"]
    smaller = halved(run.train.batch_size, distributed.world() * run.train.accumulate)
    at_once = "" if run.train.micro_batch is None else f" and a train.micro_batch of {run.train.micro_batch}"
    return ContralexError(
        f"Memory ran out in step {step}, with a train.batch_size of {run.train.batch_size}{at_once}. Encode fewer "
        f"samples at once, and look the same batch up:{remedy(*settings)}"
        + (f"\nOr take a smaller batch:{remedy('--set', f'train.batch_size={smaller}')}" if smaller else "")
    )


def _refused(
    run: RunSpec, slot: str, what: str, tensor: Tensor, needed: int, free: int, where: str = "memory"
) -> ContralexError:
    return ContralexError(
        f"{slot}: {what}; this process may have {memory.in_words(free)} of {where}. "
        + _advice(run, slot, tensor, free / needed)
    )


def _advice(run: RunSpec, slot: str, tensor: Tensor, there: float) -> str:
    """``there``: how much memory there is, over what is needed."""
    slots = (slot, "method.encoder", "method.negatives")  # a key encoder is as large as the encoder
    for path, number, times in (each for at in slots for each in _numbers_of(run, at, tensor)):
        fitting = number * (there / _SPARE) ** (1 / times)
        if fitting >= 1:
            return f"Try:{remedy('--set', f'{path}={2 ** math.floor(math.log2(fitting))}')}"
    return f"Choose smaller numbers in {slot}, or fewer samples."


def _numbers_of(run: RunSpec, slot: str, tensor: Tensor) -> list[tuple[str, int, int]]:
    """The fields of a slot whose number is a size of the tensor's, the largest first, with how many sizes each makes:
    1, or 2 for the side of a square."""
    sizes = list(tensor.shape)
    found = list(_numbers(getattr(run.method, slot.partition(".")[2]), slot))
    alike = [number for _, number in found]
    return sorted(
        (
            (path, number, max(sizes.count(number) // alike.count(number), 1))
            for path, number in found
            if number in sizes and number > 1
        ),
        key=lambda each: -each[1],
    )


def _numbers(spec: Any, path: str) -> Iterator[tuple[str, int]]:
    found = walk(spec, path)
    return ((place, value) for place, value in found if isinstance(value, int) and not isinstance(value, bool))


def _outline(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """A tensor without memory, of the shape and type of the one that the call makes; None where it makes none."""
    if func is Tensor.clone:
        copied: Tensor = args[0]
        return copied
    if func not in _MAKERS:
        return None
    without = {name: value for name, value in kwargs.items() if name not in ("generator", "pin_memory", "out")}
    made: Tensor = func(*args, **{**without, "device": "meta"})
    return made


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _shape(tensor: Tensor) -> str:
    return " x ".join(f"{size:,}" for size in tensor.shape)
