"""SimCLR's batch of 4096 on a ResNet-50, in parts of 64: its memory beside a batch of 64, and its time. For
``benchmarks/gpu.sh``.
"""

from __future__ import annotations

from benchmarks.measuring import OURS, Case, Options, Peers, Report, main, peak_bytes
from benchmarks.ready import CLOCK
from benchmarks.step import CONV, Task, ours


def measure(options: Options, report: Report, peers: Peers) -> None:
    size, parts = (128, 32) if options.small else (4096, 64)
    for batch in (parts, size):  # the small one first, so that it is not lost where the time is up in the large one
        name = f"simclr in parts of {parts}, {32 if options.small else 224} px, batch {batch}"
        report.begin(name)
        report.add(in_parts(name, batch, parts, options))


def in_parts(name: str, batch: int, parts: int, options: Options) -> Case:
    """The memory of a run of two steps, with its data.

    BatchNorm is computed in groups of a part, so that a batch may be encoded in parts. Only small runs warm up: others
    take long.
    """
    backbone = CONV if options.small else "{kind: torchvision, name: resnet50}"
    task = Task("", "simclr", backbone, 32 if options.small else 224, batch, 2)
    sets = {"train.precision": "bf16", "train.batch_norm": parts}
    if batch > parts:
        sets["train.micro_batch"] = parts
    case = Case(name)
    CLOCK.device = options.device
    case.bytes[OURS] = peak_bytes(lambda: ours(task, sets), options.device, warm_up=options.small)
    case.figures["seconds a step, with its data"] = CLOCK.mean_seconds()
    return case


if __name__ == "__main__":
    main(__doc__ or "", "micro_batches", measure)
