"""Whether there are enough samples, in the data and in a batch, for the parts of a method.

The specs declare what they need (:meth:`contralex.plugins.spec.Spec.least`); this module knows no kind by name.
"""

from __future__ import annotations

from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed
from contralex.plugins.spec import Least
from contralex.recipes.run_spec import RunSpec

_SLOTS = ("encoder", "key_encoder", "negatives", "targets", "loss")


def check_samples(run: RunSpec, population: int, processes: int) -> None:
    """Refuses a run on ``population`` samples that has too few of them, in an epoch or in a batch."""
    batch = run.train.batch_size
    slots = {slot: getattr(run.method, slot) for slot in _SLOTS}
    offers = {slot: spec.offers() for slot, spec in slots.items()} | {"data": run.data.offers()}
    there = {"batch": batch, "epoch": population // batch * batch}
    for slot, spec in slots.items():
        for least in spec.least(offers):
            if there[least.of] < least.count:
                raise ContralexError(_sentence(f"method.{slot}", least, there[least.of], population, processes))


def check_share(batch: int, processes: int) -> None:
    """Whether every process can have an equal part of a batch."""
    if batch % processes:
        lower = batch - batch % processes
        nearest = lower if lower >= 2 * processes else 2 * processes  # one sample each is too few for most methods
        raise ContralexError(
            f"train.batch_size is {batch} over all processes, which {processes} processes cannot share evenly. Try:"
            + remedy("--set", f"train.batch_size={nearest}")
        )


def check_population(population: int, batch: int, queue: tuple[str, int] | None, where: str) -> None:
    """Whether so many samples can fill a batch and a queue. ``queue``: the field that says its size, and the size.
    ``where`` names the data: ``image_folder at ./photos``."""
    if population < batch:
        raise ContralexError(
            f"{where} has {population} sample{'s' if population != 1 else ''} to train on, fewer than one batch of "
            f"{batch}. {advice(population, distributed.world())}"
        )
    if queue is not None and queue[1] > population:
        raise ContralexError(
            f"method.negatives.{queue[0]} ({queue[1]}) is larger than the data set ({population}), so that every "
            f"sample would meet its own old keys; set it to at most {population}:"
            + remedy("--set", f"method.negatives.{queue[0]}={population}")
        )


def sensible_batch(population: int, processes: int, most: int = 64) -> int | None:
    """The largest power of two, times the processes, that the data can fill with two samples or more on each."""
    share = min(population, most) // processes
    return processes * 2 ** (share.bit_length() - 1) if share >= 2 else None


def halved(batch: int, processes: int) -> int | None:
    """About half of a batch, which the processes can share evenly; None where that leaves one of them fewer than 2."""
    share = batch // processes // 2
    return processes * share if share >= 2 else None


def _sentence(path: str, least: Least, there: int, population: int, processes: int) -> str:
    if least.of == "epoch":
        lower = remedy("--set", f"{path}.{least.field}={max(there // 10, 2)}") if least.field else ""
        return (
            f"{path} needs {least.count} samples in an epoch, and its whole batches have {there}: {least.why}. Give "
            f"more data{', or lower ' + least.field + ':' if lower else '.'}{lower}"
        )
    way_out = advice(population, processes, least.count)
    return f"train.batch_size is {there}, and {path} needs {least.count} samples in a batch: {least.why}. {way_out}"


def advice(population: int, processes: int, least: int = 2) -> str:
    """How to get a batch of ``least`` samples or more."""
    batch = sensible_batch(population, processes)
    if batch is None or batch < least:
        several = f" on {processes} processes" if processes > 1 else ""
        return f"There are too few samples{several} for any batch ({population}); give more data."
    return "Try:" + remedy("--set", f"train.batch_size={batch}")
