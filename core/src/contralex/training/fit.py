"""``--fit``: the settings that depend on how many samples there are, and on the device.

Recipes are the papers': batches of 256 and queues of 65,536 keys on eight GPUs. A folder of some hundred or thousand
pictures on a laptop needs other numbers. Each of them is a ``--set``, which is printed and stays in the run's spec.
What the user sets has the last word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contralex import memory
from contralex.errors import remedy
from contralex.plugins.spec import Spec
from contralex.recipes import delays
from contralex.recipes.layers import Resolved
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.sample_counts import queues, sensible_batch, too_few
from contralex.recipes.walk import walk
from contralex.training import activation_memory, devices

_STEPS = 4  # of an epoch: fewer leave most of a small folder out of each epoch, or make every batch the same
_MOST = 256  # samples of a batch that is chosen here
_FOR_ACTIVATIONS = 0.6  # of the free memory: weights have gradients, and so have a layer's activations


@dataclass(frozen=True)
class Setting:
    """A value for one field of a spec, and a clause that says why."""

    path: str
    value: Any
    why: str

    @property
    def text(self) -> str:
        """As ``--set`` takes it."""
        return f"{self.path}={_text(self.value)}"

    def __str__(self) -> str:
        return f"{remedy('--set', self.text).strip()}  ({self.why})"


def fit(
    resolve: Callable[[Sequence[str]], Resolved],
    dataset_size: int,
    processes: int,
    device: str,
    minutes: float | None = None,
    seconds_a_step: Callable[[Resolved], float] | None = None,
    bytes_a_sample: Callable[[RunSpec], int] | None = None,
) -> tuple[Resolved, list[Setting]]:
    """The spec with the settings that fit it to so many samples and this device, and those settings.

    ``resolve`` makes the spec from further ``--set`` texts, which stand below the user's own. ``minutes``: how long
    training may take, by what ``seconds_a_step`` measures. ``bytes_a_sample`` measures the activations of a sample;
    without it, memory is not looked at.
    """
    made: list[Setting] = []

    def add(settings: Iterable[Setting]) -> Resolved:
        made.extend(settings)
        return resolve([setting.text for setting in made])

    found = add(batch_settings(resolve([]).run, dataset_size, processes))
    found = add(sample_settings(found.run, dataset_size))
    found = add(device_settings(found.run, device))
    if bytes_a_sample is not None and found.run.train.micro_batch is None:
        free = activation_memory.free(device)
        if free is not None:
            found = add(memory_settings(found.run, processes, bytes_a_sample(found.run), free))
    if minutes is not None and seconds_a_step is not None:
        found = add(time_settings(found.run, dataset_size, seconds_a_step(found), minutes))
    found = add(delay_settings(found.run))
    return found, [setting for setting in made if _holds(found.run, setting)]


def _holds(run: RunSpec, setting: Setting) -> bool:
    """Whether the user has not set something else there."""
    value = dict(walk(run)).get(setting.path)
    return _text(value.model_dump() if isinstance(value, Spec) else value) == _text(setting.value)


def batch_settings(run: RunSpec, dataset_size: int, processes: int) -> Iterator[Setting]:
    """A batch that the data fill some times an epoch; the learning rate goes on to mean what it meant."""
    train = run.train
    if train.batch_size * _STEPS <= dataset_size:
        return
    batch = sensible_batch(dataset_size // _STEPS, processes, _MOST) or sensible_batch(dataset_size, processes)
    if batch is None or batch >= train.batch_size:
        return
    yield Setting("train.batch_size", batch, f"{dataset_size // batch} steps an epoch of {dataset_size} samples")
    if train.accumulate > 1:
        yield Setting("train.accumulate", 1, f"a batch of {batch} needs no parts")
    if train.optimizer.scaling.rule == "none":
        rule = "sqrt" if train.optimizer.kind in ("adam", "adamw") else "linear"
        scaling = {"rule": rule, "per": train.batch_size}
        yield Setting("train.optimizer.scaling", scaling, f"the rate is meant for batches of {train.batch_size}")
    if isinstance(train.batch_norm, int) and batch % train.batch_norm:
        yield Setting("train.batch_norm", "local", f"a batch of {batch} is not made of groups of {train.batch_norm}")


def sample_settings(run: RunSpec, dataset_size: int) -> Iterator[Setting]:
    """What the number of samples bounds: a queue, what needs so many samples an epoch, neighbours that vote.

    ``run`` has its batch already.
    """
    for path, length in queues(run):
        if length > dataset_size // 2:
            size = 2 ** int(math.log2(max(dataset_size // 2, 1)))
            yield Setting(path, size, "about half of the samples, so that few meet their own old keys")
    for path, least, there in too_few(run, dataset_size, run.train.batch_size):
        if least.field:
            yield Setting(f"{path}.{least.field}", max(there // 10, 2), f"an epoch has {there} samples")
    if run.eval.knn is not None:
        neighbours = max(5, round(math.sqrt(dataset_size) / 2))
        if run.eval.knn.k > neighbours:
            yield Setting("eval.knn.k", neighbours, f"neighbours that vote, of {dataset_size} samples")


def device_settings(run: RunSpec, device: str) -> Iterator[Setting]:
    """The precision that the device computes natively, and the processes that load data."""
    precision = best_precision(device)
    if precision != run.train.precision:
        yield Setting("train.precision", precision, f"what {device} computes fastest")
    if run.train.workers is None:
        yield Setting(
            "train.workers", devices.workers(None, device), "processes that load data, by the cores there are"
        )


def memory_settings(run: RunSpec, processes: int, bytes_a_sample: int, free: int) -> Iterator[Setting]:
    """Micro-batches, where the activations of a process's part of the batch need more than the memory that is free."""
    train = run.train
    own, group = train.look_up_size // processes, train.batch_norm if isinstance(train.batch_norm, int) else 1
    most = int(free * _FOR_ACTIVATIONS) // max(bytes_a_sample, 1)
    if own <= most:
        return
    size = next((size for size in range(most, 1, -1) if own % size == 0 and size % group == 0), None)
    if size is None:
        return
    why = f"the activations of {own} samples take {memory.in_words(own * bytes_a_sample)}; the look-up sees them all"
    yield Setting("train.micro_batch", size, why)
    if train.batch_norm == "sync":
        yield Setting("train.batch_norm", size, "statistics of a whole batch would need all of its activations")


def time_settings(run: RunSpec, dataset_size: int, seconds_a_step: float, minutes: float) -> Iterator[Setting]:
    """As many epochs as fit into so many minutes, the recipe's at most."""
    steps = dataset_size // run.train.batch_size
    epochs = max(1, min(run.train.epochs, int(minutes * 60 / (steps * seconds_a_step))))
    if epochs != run.train.epochs:
        yield Setting("train.epochs", epochs, f"about {minutes:g} minutes at {seconds_a_step:.2g} s a step")


def delay_settings(run: RunSpec) -> Iterator[Setting]:
    """Warm-ups and freezes that would take too much of the run."""
    for path, delay, fitting in delays.shortened(run, run.train.epochs):
        yield Setting(path, fitting, f"{delay.epochs:g} epochs are much of {run.train.epochs}")


def best_precision(device: str) -> str:
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if device == "cpu" and _has_bf16() else "fp32"


def _has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies matrices of bfloat16 itself; where it does not, they are slower than float32's."""
    try:
        text = cpuinfo.read_text("utf-8", errors="replace")
    except OSError:  # no Linux
        return False
    return "amx_bf16" in text or "avx512_bf16" in text


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    return str(value)
