"""Whether there are enough samples, in the data and in a batch, for the parts of a method.

The specs declare what they need (:meth:`contralex.plugins.spec.Spec.least`); this module knows no kind by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from contralex.errors import ContralexError, remedy
from contralex.lookup.names import MAIN
from contralex.plugins.hooks import METHOD_SLOTS, SHARED_SLOTS
from contralex.plugins.spec import Least
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.slot_paths import slot_path

FIT = "To have all that depends on the data and the device set for you:" + remedy("--fit")


def check_counts(run: RunSpec, dataset_size: int, processes: int, where: str) -> None:
    """Refuses a run on ``dataset_size`` samples that has too few of them, in a batch, in an epoch or for a queue: one
    message with all that does not fit. ``where`` names the data: ``image_folder at ./photos``."""
    found = misfits(run, dataset_size, processes, where)
    if found:
        # A batch that is too small for its method is the user's own number, and no matter of the data's size.
        own = any(least.of == "batch" for _, least, _ in too_few(run, dataset_size, run.train.batch_size))
        raise ContralexError("\n".join(found if own or dataset_size < 2 * processes else [*found, FIT]))


def misfits(run: RunSpec, dataset_size: int, processes: int, where: str) -> list[str]:
    """A sentence, with its setting, for each number that so many samples cannot serve."""
    batch = run.train.batch_size
    if dataset_size < batch:
        few = (
            f"{where} has {dataset_size} sample{'s' if dataset_size != 1 else ''} to train on, fewer than one batch of "
            f"{batch}. {advice(dataset_size, processes)}"
        )
        batch = sensible_batch(dataset_size, processes) or batch  # what else would not fit then
        return [few, *_queue(run, dataset_size), *_least(run, dataset_size, batch, processes)]
    return [*_queue(run, dataset_size), *_least(run, dataset_size, batch, processes)]


def too_few(run: RunSpec, dataset_size: int, batch: int) -> Iterator[tuple[str, Least, int]]:
    """What the parts need of samples and do not have: the slot's path, the need, and how many there are."""
    there = {"batch": batch // run.train.accumulate, "epoch": dataset_size // batch * batch}
    for question, asked in run.method.questions().items():
        slots = {slot: getattr(run.method if slot in SHARED_SLOTS else asked, slot) for slot in METHOD_SLOTS}
        offers = {slot: spec.offers() for slot, spec in slots.items()} | {"data": run.data.offers()}
        for slot, spec in slots.items():
            is_seen = question != MAIN and slot in SHARED_SLOTS
            for least in [] if is_seen else spec.least(offers):
                if there[least.of] < least.count:
                    yield slot_path(question, slot), least, there[least.of]


def _least(run: RunSpec, dataset_size: int, batch: int, processes: int) -> list[str]:
    accumulate = run.train.accumulate
    return [_sentence(*found, dataset_size, processes, accumulate) for found in too_few(run, dataset_size, batch)]


def _queue(run: RunSpec, dataset_size: int) -> list[str]:
    return [
        f"{path} ({size}) is larger than the data set ({dataset_size}), so that every "
        f"sample would meet its own old keys; set it to at most {dataset_size}:"
        + remedy("--set", f"{path}={dataset_size}")
        for path, size in queues(run)
        if size > dataset_size
    ]


def queues(run: RunSpec) -> list[tuple[str, int]]:
    """Of each look-up that keeps the newest keys: the path of the field that says how many, and how many."""
    kept = {question: asked.negatives.queued() for question, asked in run.method.questions().items()}
    return [
        (slot_path(question, f"negatives.{queue[0]}"), queue[1])
        for question, queue in kept.items()
        if queue is not None
    ]


def check_share(batch: int, processes: int, accumulate: int = 1) -> None:
    """Whether every process can have an equal part of a batch, or of each of the batches that it ``accumulate``s."""
    parts = processes * accumulate
    if batch % parts:
        lower = batch - batch % parts
        nearest = lower if lower >= 2 * parts else 2 * parts  # one sample each is too few for most methods
        several = f" in {accumulate} parts (train.accumulate)" if accumulate > 1 else ""
        raise ContralexError(
            f"train.batch_size is {batch} over all processes{several}, which {processes} processes cannot share "
            f"evenly. Try:{remedy('--set', f'train.batch_size={nearest}')}"
        )


def check_micro_batch(batch: int, micro: int | None, processes: int) -> None:
    """Whether every process can divide its part of a ``batch`` that is looked up into equal micro-batches."""
    own = batch // processes
    if micro is not None and micro < own and own % micro:
        raise ContralexError(
            f"train.micro_batch is {micro}, which does not divide the {own} samples that each of {processes} processes "
            f"has of a batch of {batch}. Try:" + remedy("--set", f"train.micro_batch={math.gcd(micro, own)}")
        )


def sensible_batch(dataset_size: int, processes: int, most: int = 64) -> int | None:
    """The largest power of two, times the processes, that the data can fill with two samples or more on each."""
    share = min(dataset_size, most) // processes
    return processes * 2 ** (share.bit_length() - 1) if share >= 2 else None


def halved(batch: int, processes: int) -> int | None:
    """About half of a batch, which the processes can share evenly; None where that leaves one of them fewer than 2."""
    share = batch // processes // 2
    return processes * share if share >= 2 else None


def halved_micro_batch(run: RunSpec, processes: int) -> int | None:
    """About half of the samples that a process encodes at once, which divide its part of the batch and are made of
    whole groups of BatchNorm's; None where that leaves fewer than 2."""
    train = run.train
    own, group = train.look_up_size // processes, train.batch_norm if isinstance(train.batch_norm, int) else 1
    smaller = range(train.samples_at_once(processes) // 2, 1, -1)
    return next((size for size in smaller if own % size == 0 and size % group == 0), None)


def _sentence(path: str, least: Least, there: int, dataset_size: int, processes: int, accumulate: int) -> str:
    if least.of == "epoch":
        lower = remedy("--set", f"{path}.{least.field}={max(there // 10, 2)}") if least.field else ""
        return (
            f"{path} needs {least.count} samples in an epoch, and its whole batches have {there}: {least.why}. Give "
            f"more data{', or lower ' + least.field + ':' if lower else '.'}{lower}"
        )
    needs = f"and {path} needs {least.count} samples in a batch: {least.why}."
    if accumulate > 1:
        samples = "1 sample" if there == 1 else f"{there} samples"
        return f"train.accumulate is {accumulate}, so a look-up has {samples}, {needs} Try:" + remedy(
            "--set", "train.accumulate=1"
        )
    return f"train.batch_size is {there}, {needs} {advice(dataset_size, processes, least.count)}"


def advice(dataset_size: int, processes: int, least: int = 2) -> str:
    """How to get a batch of ``least`` samples or more."""
    batch = sensible_batch(dataset_size, processes)
    if batch is None or batch < least:
        several = f" on {processes} processes" if processes > 1 else ""
        return f"There are too few samples{several} for any batch ({dataset_size}); give more data."
    return "Try:" + remedy("--set", f"train.batch_size={batch}")
