"""Signs in a spec: numbers that are out of the range in which anybody has found a method to work."""

from __future__ import annotations

from collections.abc import Iterator

from contralex.lookup.clock import Clock, value_at
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.sample_counts import queues
from contralex.training.diagnosis import settings
from contralex.training.diagnosis.signs import Sign

_COLDEST, _WARMEST = 0.01, 1.0
_KEPT = 0.2
_OWN_KEYS = 0.2


def spec_signs(run: RunSpec, dataset_size: int, clock: Clock) -> Iterator[Sign]:
    """``clock``: the moment at which schedules are looked at."""
    yield from _temperature(run, clock)
    for path, size in queues(run):
        yield from _queue_age(run, path, size, clock)
        yield from _own_keys(path, size, dataset_size)


def _temperature(run: RunSpec, clock: Clock) -> Iterator[Sign]:
    """Of scores of unit vectors, which lie between -1 and 1."""
    offers = run.method.encoder.offers()
    if "unit length" not in offers or "any length" in offers:
        return
    for path, number in settings.temperatures(run):
        value = value_at(number, clock)
        if not _COLDEST <= value <= _WARMEST:
            why = "every entry gets nearly the same weight" if value > _WARMEST else "only the nearest entry counts"
            yield Sign(
                "temperature",
                f"{path} is {value:g}, with which {why}.",
                f"a temperature from {_COLDEST:g} to {_WARMEST:g}",
                "CLIP, arXiv:2103.00020, section 2.5, ends at 0.01; of 0.05 to 1, SimCLR, arXiv:2002.05709, Table 5, "
                "finds 1 the worst",
                {"temperature": value},
                (settings.scaled(path, number, 0.1 / value),),
            )


def _queue_age(run: RunSpec, path: str, size: int, clock: Clock) -> Iterator[Sign]:
    """The oldest keys of a queue are of a key encoder of which little may be left in the present one."""
    key_encoder = run.method.key_encoder
    follows = key_encoder.follows()
    if follows is None and key_encoder.key_weights != "shared":
        return
    weight = 0.0 if follows is None else value_at(follows[1], clock)
    age = size / run.train.batch_size
    kept = weight**age
    if kept >= _KEPT or age <= 1:
        return
    batch, fitting = run.train.batch_size, max(int(run.train.batch_size * 2), 1)
    slower = f"method.key_encoder.{follows[0]}={0.5 ** (1 / age):.4g}" if follows is not None else None
    yield Sign(
        "queue_too_old",
        f"A key stays in the queue for {age:,.0f} steps (of {size:,} keys and batches of {batch:,}), after which "
        f"{kept:.0%} of the key encoder that made it is left in the present one: old and new keys do not agree.",
        f"at least {_KEPT:.0%}, that is m^steps for a momentum m",
        "MoCo, arXiv:1911.05722, section 4.1: 4096 keys and batches of 256 lose accuracy at m = 0.9, which keeps 18%",
        {"age_in_steps": age, "kept": kept},
        (*([slower] if slower else []), f"{path}={fitting}"),
    )


def _own_keys(path: str, size: int, dataset_size: int) -> Iterator[Sign]:
    """An epoch is a new order, so a sample's last key is 1 + v - u epochs old, with u and v uniform: it is younger than
    q epochs with probability q²/2."""
    fraction = size / dataset_size if dataset_size else 0.0
    expected = min(fraction, 1.0) ** 2 / 2
    if expected <= _OWN_KEYS:
        return
    yield Sign(
        "own_keys_in_queue",
        f"The queue holds {size:,} keys of {dataset_size:,} samples, so that {expected:.0%} of the queries meet an old "
        "key of their own sample among their negatives.",
        f"at most {_OWN_KEYS:.0%}, that is q²/2 for a queue of q epochs",
        "reason: such a key is pushed away, and is the same image",
        {"queries_with_own_key": expected, "epochs_in_queue": fraction},
        (f"{path}={max(dataset_size // 4, 1)}",),
    )
