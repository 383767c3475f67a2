"""Parts of a run that no other benchmark times, each beside the plain way to do it. On the CPU alone.

* ``optimizers``: a step of a ResNet-50's parameters by LARS beside lightly's; by SGD and AdamW as a run makes them
  beside torch's with its default settings.
* ``batch_norm``: BatchNorm in groups beside a loop over the chunks, forward and backward, in both memory formats.
* ``rank``: the effective rank of wide keys beside the eigenvalues of their D×D matrix.
* ``agreement``: a step at whose end processes agree whether to go on, beside a blocking all_reduce of one number.
* ``listing``: the files of class folders beside torchvision's ``make_dataset``. ``--files 1000000`` takes a million.
* ``tiles``: look-ups with tiles of other shapes, and with all scores at once.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import contralex
from benchmarks.loss import backward, in_batch_step, moment, two_views
from benchmarks.measuring import OURS, Case, Options, Peers, Report, compare, compare_calls, main, time_calls
from benchmarks.queue import look_ups
from contralex.data import layout
from contralex.lookup import batch_norm, streaming, twins
from contralex.training import health, optimizers
from contralex.training.stopping import Stopping
from tests.processes import free_port, join, spawn

Calls = dict[str, Callable[[], object]]
FILES, FOLDERS = 200_000, 100
RATE = 1e-4  # so small that weights stay what they are over thousands of steps
LIMIT = 120.0  # seconds for some processes


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=PARTS, help="Measure these parts alone.")
    parser.add_argument("--files", type=int, help=f"Files that are listed. Without it, {FILES:,}.")


def measure(options: Options, report: Report, peers: Peers) -> None:
    for name, part in PARTS.items():
        if name in (options.own.get("only") or PARTS):
            report.begin(name)
            for case in part(options, peers):
                report.add(case)


# Optimisers


def optimizer_cases(options: Options, peers: Peers) -> Iterator[Case]:
    import torchvision

    name = "resnet18" if options.small else "resnet50"
    network: nn.Module = getattr(torchvision.models, name)(weights=None)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    lars = {OURS: own_step("byol", network)}
    if lightly := peers.load("lightly.utils.lars", "lightly"):
        lars["lightly"] = their_step(lightly.LARS, network, momentum=0.9, weight_decay=1.5e-6)
    yield compare_calls(f"LARS, {name}", lars, options)
    sgd = their_step(torch.optim.SGD, network, momentum=0.9, weight_decay=1e-4)
    yield compare_calls(f"SGD, {name}", {OURS: own_step("moco-v2", network), "torch's default": sgd}, options)
    adamw = their_step(torch.optim.AdamW, network, weight_decay=1e-4)
    yield compare_calls(
        f"AdamW, {name}", {OURS: own_step("byol", network, "digits"), "torch's default": adamw}, options
    )


def own_step(recipe: str, network: nn.Module, preset: str | None = None) -> Callable[[], object]:
    """A step of the recipe's optimiser as a run in float32 makes it."""
    own, spec = copy_with_gradients(network), contralex.resolve(recipe, preset=preset).run.train.optimizer
    optimizer = optimizers.build(spec, own, fused=optimizers.can_fuse(own, "cpu", "fp32"))
    optimizers.set_rates(optimizer, spec, moment(256).clock, 256)
    for group in optimizer.param_groups:
        group["lr"] = RATE
    return optimizer.step


def their_step(kind: Any, network: nn.Module, *, weight_decay: float, **options: Any) -> Callable[[], object]:
    """A step of another optimiser, whose weight decay leaves norms and biases out."""
    own = copy_with_gradients(network)
    weights = [each for each in own.parameters() if each.dim() > 1]
    rest = [each for each in own.parameters() if each.dim() <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    step: Callable[[], object] = kind(groups, lr=RATE, **options).step
    return step


def copy_with_gradients(network: nn.Module) -> nn.Module:
    own = copy.deepcopy(network)
    for mine, theirs in zip(own.parameters(), network.parameters(), strict=True):
        mine.grad = None if theirs.grad is None else theirs.grad.clone()
    return own


# BatchNorm in groups


def batch_norm_cases(options: Options, _: Peers) -> Iterator[Case]:
    shapes = [(64, 16, 4, 4)] if options.small else [(256, 64, 32, 32), (256, 256, 8, 8)]
    for shape in shapes:
        size = "x".join(map(str, shape))
        for kind, memory in (("contiguous", torch.contiguous_format), ("channels-last", torch.channels_last)):
            for groups in (2, 8, 32):
                calls = batch_norms(shape, groups, memory)
                yield compare_calls(f"BatchNorm of {size} in {groups} groups, {kind}", calls, options)


def batch_norms(shape: Sequence[int], groups: int, memory_format: torch.memory_format) -> Calls:
    generator, samples = torch.Generator().manual_seed(0), shape[0] // groups
    x, gradient = (torch.randn(*shape, generator=generator).contiguous(memory_format=memory_format) for _ in range(2))
    x.requires_grad_()
    by_hand, ours = nn.BatchNorm2d(shape[1]), nn.Sequential(nn.BatchNorm2d(shape[1]))
    batch_norm.convert(ours, samples)

    def both_ways(normalize: Callable[[Tensor], Tensor]) -> None:
        normalize(x).backward(gradient)
        x.grad = None

    return {
        OURS: lambda: both_ways(ours),
        "a loop over chunks": lambda: both_ways(lambda x: torch.cat([by_hand(part) for part in x.split(samples)])),
    }


# The effective rank of keys


def rank_cases(options: Options, _: Peers) -> Iterator[Case]:
    """At full size the plain way takes minutes, so it runs once, and what is warmed up is a small part of the keys."""
    for rows, dim in ((32, 64),) if options.small else ((256, 8192), (4096, 8192)):
        keys = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))
        sides = {OURS: after_a_small_one(health.effective_rank, keys), f"{dim}x{dim}": after_a_small_one(by_hand, keys)}
        yield compare(f"effective rank, {rows} x {dim}", sides, options.rounds if options.small else 1)


def after_a_small_one(rank: Callable[[Tensor], float], keys: Tensor) -> Callable[[], float]:
    """A side that times ``rank`` of the keys; the first time, of a few of their dimensions."""
    asked = [keys[:, :64], keys]
    return lambda: time_calls(lambda: rank(asked.pop(0) if len(asked) > 1 else keys), 1, "cpu")


def by_hand(keys: Tensor) -> float:
    """The effective rank from the eigenvalues of the D×D matrix."""
    wide = keys.double()
    sizes = torch.linalg.eigvalsh(wide.T @ wide).clamp_min(0).sqrt()
    fraction = sizes / sizes.sum()
    return float(torch.exp(-(fraction * torch.log(fraction + 1e-7)).sum()))


# What processes agree on


def agreement_cases(options: Options, _: Peers) -> Iterator[Case]:
    for world in (2,) if options.small else (2, 4):
        queue = mp.get_context("forkserver").SimpleQueue()
        spawn(_agree, (world, free_port(), options, queue), world, LIMIT)
        yield queue.get()


def _agree(rank: int, world: int, port: int, options: Options, queue: Any) -> None:
    """In one of the processes, on one thread: steps of a millisecond or two, with three ways to agree at their end."""
    join(rank, port, world)
    matrix, steps, stopping = torch.randn(256, 256), 5 if options.small else 100, Stopping()

    def by_all_reduce() -> bool:
        is_any = torch.tensor(0)
        dist.all_reduce(is_any, op=dist.ReduceOp.MAX)
        return bool(is_any)

    def timed(agree: Callable[[], object]) -> float:
        dist.barrier()
        began = time.perf_counter()
        for _ in range(steps):
            for _ in range(10):
                torch.mm(matrix, matrix)
            agree()
        return (time.perf_counter() - began) / steps

    ways: Calls = {OURS: stopping.agree_later, "blocking all_reduce": by_all_reduce, "no agreement": lambda: None}
    sides = {name: lambda agree=agree: timed(agree) for name, agree in ways.items()}
    case = compare(f"a step, {world} processes", sides, options.rounds)
    for name in (OURS, "blocking all_reduce"):
        added = case.seconds[name].median - case.seconds["no agreement"].median
        case.figures[f"milliseconds that agreeing adds to a step, {name}"] = 1e3 * added
    stopping.agree()  # hears the last answer
    if rank == 0:
        queue.put(case)
    dist.barrier()
    dist.destroy_process_group()


# The files of a folder


def listing_cases(options: Options, peers: Peers) -> Iterator[Case]:
    count = options.own.get("files") or (1000 if options.small else FILES)
    folders = min(FOLDERS, count // 10)
    with tempfile.TemporaryDirectory() as name:
        for folder in (Path(name, f"class_{number:03}") for number in range(folders)):
            folder.mkdir()
            for number in range(count // folders):
                (folder / f"image_{number:06}.jpg").touch()
        calls: Calls = {OURS: lambda: layout.arrange(layout.walk(Path(name), {".jpg", ".png"}), "auto")}
        if torchvision := peers.load("torchvision.datasets.folder", "torchvision"):
            calls["torchvision"] = lambda: torchvision.make_dataset(name, extensions=(".jpg", ".png"))
        case = compare_calls(f"listing {count:,} files in {folders} folders", calls, options)
        case.figures["microseconds a file"] = 1e6 * case.seconds[OURS].median / count
        yield case


# Tiles of a look-up


def tile_cases(options: Options, peers: Peers) -> Iterator[Case]:
    """How the constants of :mod:`contralex.lookup.streaming` and :mod:`contralex.lookup.twins` were chosen."""
    sizes = (256, 512, 1024, 2048)
    for rows in (64,) if options.small else (4096,):
        sides = {f"{size} x {size}": {twins: {"_TILE": size}} for size in sizes}
        yield compare_calls(f"NT-Xent, {rows} rows, tiles", variants(nt_xent(rows, options), sides), options)
    shapes = [(rows, columns) for rows in (128, 256, 512) for columns in (512, 1024, 2048, 4096)]
    for batch, size in ((64, 512),) if options.small else ((256, 65536), (2048, 16384)):
        step = look_ups(size, batch, peers, options)[OURS]
        sides = {
            f"{rows} x {columns}": {streaming: {"_ROWS": rows, "_COLUMNS": columns}}
            for rows, columns in shapes
            if rows <= batch
        }
        yield compare_calls(f"queue, {size} keys, batch {batch}, tiles", variants(step, sides), options)
    forms = {"all scores at once": {streaming: {"KEPT": 2**62}}, "tiles": {streaming: {"KEPT": 0}}}
    for rows in (64,) if options.small else (256, 512, 1024, 2048, 4096):
        calls = variants(nt_xent(rows, options), forms)
        yield compare_calls(f"NT-Xent, {rows} rows, at once", calls, options, with_memory=True)
    for size in (512,) if options.small else (1024, 4096, 16384):
        calls = variants(look_ups(size, 256, peers, options)[OURS], forms)
        yield compare_calls(f"queue, {size} keys, batch 256, at once", calls, options, with_memory=True)


def nt_xent(rows: int, options: Options) -> Callable[[], object]:
    a, b = two_views(rows // 2, options.device)
    step = in_batch_step(contralex.InfoNCE(0.1), contralex.InstanceTargets(), options, "all")
    return lambda: backward(step(a, b), a, b)


def variants(call: Callable[[], object], sides: Mapping[str, Mapping[ModuleType, Mapping[str, int]]]) -> Calls:
    """The call as it is, and with other constants of some modules for each side."""
    return {OURS: call, **{name: with_constants(call, constants) for name, constants in sides.items()}}


def with_constants(call: Callable[[], object], constants: Mapping[ModuleType, Mapping[str, int]]) -> Callable[[], None]:
    def changed() -> None:
        with replaced([(module, *each) for module, values in constants.items() for each in values.items()]):
            call()

    return changed


@contextmanager
def replaced(constants: Iterable[tuple[ModuleType, str, int]]) -> Iterator[None]:
    kept = [(module, name, getattr(module, name)) for module, name, _ in constants]
    try:
        for module, name, value in constants:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


PARTS: dict[str, Callable[[Options, Peers], Iterator[Case]]] = {
    "optimizers": optimizer_cases,
    "batch_norm": batch_norm_cases,
    "rank": rank_cases,
    "agreement": agreement_cases,
    "listing": listing_cases,
    "tiles": tile_cases,
}


if __name__ == "__main__":
    main(__doc__ or "", "parts", measure, add_options)
