"""Signs that a run learns nothing: keys that are all alike, a loss that stays where chance would put it.

They are read off the lines of ``metrics.jsonl`` alone, so a run and ``contralex doctor RUN`` see the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.host_copies import HostCopy, read_on_host
from contralex.lookup.names import MAIN
from contralex.recipes.slot_paths import slot_path

_ROWS = 512  # of a batch's keys, which are enough to see whether they differ
_LINES = 10  # logged in a row before a sign is believed
_ALIKE = 0.05  # of the spread that unit vectors have which point everywhere
_FEW = 1.5  # directions


@torch.no_grad()
def measure_keys(keys: Tensor, entries: int, added: int = 1) -> dict[str, float]:
    """What is logged of a step's keys (R, D): ``feature_std``, ``effective_rank``, and ``entries`` of the dictionary;
    and how many losses were ``added`` where the loss is a sum.

    ``feature_std``: the mean over dimensions of the standard deviation of unit keys, times √D: 1 where they point
    everywhere, 0 where they are all alike (SimSiam, arXiv:2011.10566, section 4.1). ``effective_rank``: exp of the
    entropy of the normalised singular values (Roy & Vetterli, 2007; RankMe, arXiv:2210.02885, Eq. 4).
    """
    return name_figures(HostCopy(summarize_keys(keys)).wait(), keys.shape[1], entries, added)


@torch.no_grad()
def summarize_keys(keys: Tensor) -> Tensor:
    """All numbers of a step's keys (R, D) that :func:`name_figures` reads, in float64, which can be copied to the host
    at once: the mean standard deviation of unit keys, and their smaller Gram matrix. Nothing, of a single key.

    The eigenvalues of that matrix take a tenth of the time that the singular values of wide keys do. They are squares,
    so in float32 rounding would add a thousandth of the largest singular value to each of the small ones, and hide a
    collapse. Some devices have no float64; the CPU has.
    """
    unit = F.normalize(keys[:: max(1, len(keys) // _ROWS)][:_ROWS].float(), dim=1)
    if unit.device.type not in ("cpu", "cuda"):
        unit = unit.cpu()
    if len(unit) < 2:
        return unit.new_empty(0, dtype=torch.float64)
    spread, wide = unit.std(dim=0).mean(), unit.double()
    gram = wide @ wide.T if wide.shape[0] < wide.shape[1] else wide.T @ wide
    return torch.cat([spread.double().view(1), gram.flatten()])


def name_figures(numbers: Tensor, dim: int, entries: int, added: int = 1) -> dict[str, float]:
    """What :func:`measure_keys` returns. ``numbers``: those of :func:`summarize_keys`, on the host now; ``dim``: D."""
    found: dict[str, float] = {"entries": entries, **({"added": added} if added > 1 else {})}
    if len(numbers) and read_on_host(torch.isfinite(numbers).all()):
        found["feature_std"] = read_on_host(numbers[0]) * math.sqrt(dim)
        side = math.isqrt(len(numbers) - 1)
        found["effective_rank"] = read_on_host(_rank(numbers[1:].view(side, side)))
    return found


def name_look_ups(measured: Mapping[str, tuple[float, float, Mapping[str, float]]]) -> dict[str, float]:
    """Of a method with several look-ups, the loss, the accuracy and the figures of each: ``dense.loss``. The figures
    of the main one stand under their own names, but for its loss."""
    found = {f"{name}.loss": loss for name, (loss, _, _) in measured.items()}
    for name, (_, accuracy, figures) in measured.items():
        if name != MAIN:
            found[f"{name}.lookup_top1"] = accuracy
            found |= {f"{name}.{figure}": value for figure, value in figures.items()}
    return found


def split_look_ups(line: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of each look-up of a logged line, by its name, as if each were a line of its own."""
    if f"{MAIN}.loss" not in line:  # one look-up; a hook may have a figure of any name
        return {MAIN: dict(line)}
    names = [name.removesuffix(".loss") for name in line if name.endswith(".loss")]
    own = {name: value for name, value in line.items() if "." not in name}
    return {
        name: (own if name == MAIN else {"step": line["step"]})
        | {figure.partition(".")[2]: value for figure, value in line.items() if figure.startswith(f"{name}.")}
        for name in names
    }


@torch.no_grad()
def effective_rank(rows: Tensor) -> float:
    """Of vectors (R, D), as they are: exp of the entropy of the normalised singular values."""
    wide = rows.detach().cpu().double()
    return float(_rank(wide @ wide.T if wide.shape[0] < wide.shape[1] else wide.T @ wide))


def _rank(gram: Tensor) -> Tensor:
    """The effective rank of vectors with this Gram matrix, a scalar."""
    share = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = share / share.sum().clamp_min(torch.finfo(share.dtype).tiny)  # a classifier's first logits are all 0
    return torch.exp(-(share * torch.log(share + 1e-7)).sum())


@torch.no_grad()
def blown_up(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those of which no next step can make a number: a value, or the sum of its squares, is not finite."""
    floats = ((name, tensor) for name, tensor in tensors.items() if tensor.is_floating_point())
    return [name for name, tensor in floats if not bool(torch.isfinite(tensor.detach().float().square().sum()))]


def name_some(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more tensors" if len(names) > 1 else "")


class Seen(NamedTuple):
    """A sign that was seen: its name, the sentence, and the line with which it was believed."""

    name: str
    sentence: str
    line: dict[str, Any]


class Watch:
    """Takes the logged lines one after the other. ``seen``: the signs so far, each once."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._watched: dict[str, _WatchedLookUp] = {}

    def new_signs(self, line: dict[str, Any]) -> list[str]:
        new: list[Seen] = []
        for name, figures in split_look_ups(line).items():
            watched = self._watched.setdefault(name, _WatchedLookUp(name))
            new += watched.new_signs(figures)
        self.seen += new
        return [each.sentence for each in new]

    @property
    def signs(self) -> list[str]:
        """The sentences so far."""
        return [each.sentence for each in self.seen]


class _WatchedLookUp:
    """What is remembered of the lines of one look-up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._in_a_row: dict[str, int] = {}
        self._first: float | None = None

    def new_signs(self, line: dict[str, Any]) -> list[Seen]:
        self._first = line["loss"] if self._first is None else self._first
        added = line.get("added", 1)
        line = {**line, "first": self._first, "added": added, "times": f"{added}·" if added > 1 else ""}
        seen = {name: cause for name, cause in _SIGNS.items() if _is_seen(name, line)}
        self._in_a_row = {name: self._in_a_row.get(name, 0) + 1 for name in seen}
        return [
            Seen(name, self._sentence(seen[name], line), line)
            for name, count in self._in_a_row.items()
            if count == _LINES
        ]

    def _sentence(self, cause: str, line: Mapping[str, Any]) -> str:
        told = cause.format(**line)
        if self.name != MAIN:
            for slot in ("loss", "targets"):
                told = told.replace(f"method.{slot}", slot_path(self.name, slot))
            told = f"look-up {self.name}: {told}"
        return f"{told} (since {_LINES} logged periods, at step {line['step']})"


def find_signs(lines: Iterable[dict[str, Any]]) -> list[str]:
    watch = Watch()
    for line in lines:
        if "loss" in line:
            watch.new_signs(line)
    return watch.signs


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``. What is none is left out, as a last one that a killed run did not finish."""
    lines = []
    for text in file.read_text("utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and _is_logged(line):
            lines.append(line)
    return lines


def _is_logged(line: dict[str, Any]) -> bool:
    """Whether it is a line as a run writes it: numbers with their names, the step among them."""
    numbers = all(type(value) is float or (type(value) is int and abs(value) < 2**62) for value in line.values())
    return numbers and type(line.get("step")) is int


_SIGNS = {
    "rising": (
        "the loss ({loss:.3f}) is more than three times what it was at first ({first:.3f}): training diverges. Lower "
        "train.optimizer.lr, set train.clip, or raise method.loss.temperature"
    ),
    "alike": (
        "the keys are nearly all alike (feature_std {feature_std:.3f}, and 1 where they differ): the method has "
        "collapsed. Where there are no negatives, see that the predictor and the momentum or the stopped gradient are "
        "there; else lower train.optimizer.lr or method.loss.temperature"
    ),
    "few": (
        "the keys lie along one direction (effective_rank {effective_rank:.2f}): a collapse of dimensions. Stronger "
        "augmentation, BatchNorm in the projector, or a lower train.optimizer.lr help most often"
    ),
    "chance": (
        "the loss ({loss:.3f}) stays at {times}ln {entries}, where chance is: every entry is as likely. Lower "
        "method.loss.temperature, raise train.optimizer.lr, or, with prototypes, lower the targets' epsilon and see "
        "that the prototypes are frozen at first"
    ),
    "nothing": (
        "the loss is exactly 0, so nothing is learnt: no query has a target. Where method.targets has a threshold, no "
        "sample reaches it; lower it"
    ),
    "ln 2": (
        "the loss ({loss:.3f}) stays at {times}ln 2 while the dictionary has {entries} entries: it looks as if each "
        "key stood there twice. See that keys are added after the look-up, not before it"
    ),
}


def _is_seen(name: str, line: dict[str, Any]) -> bool:
    loss, entries, one = line["loss"], line.get("entries", 0), line["loss"] / line["added"]
    if name == "rising":
        return bool(0 < 3 * line["first"] < loss)
    if name == "nothing":
        return bool(loss == 0)
    if name == "alike":
        return bool(line.get("feature_std", 1.0) < _ALIKE)
    if name == "few":
        are_few = line.get("effective_rank", 2.0) < _FEW and line.get("feature_std", 0.0) >= _ALIKE
        return bool(are_few and entries != 2)  # the logits of two classes lie along one direction, and should
    if name == "chance":
        at_random = line.get("lookup_top1", 1.0) < 2 / max(entries, 1)
        return bool(entries > 2 and at_random and abs(one - math.log(entries)) < 0.002 * math.log(entries))
    return bool(entries > 4 and abs(one - math.log(2)) < 0.01 * math.log(2))
