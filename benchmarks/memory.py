"""The memory of a short training: contralex beside the hand-written loop and lightly under Lightning.

The whole of a run of a few steps counts: weights, gradients, the optimiser's state, activations, the look-up. Exact,
by torch's allocator (:func:`benchmarks.measuring.peak_bytes`).
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.measuring import OURS, Case, Options, Peers, Report, main, peak_bytes
from benchmarks.step import CONV, RESNET, Task, ours, sides


def measure(options: Options, report: Report, peers: Peers) -> None:
    tiny = Task("", "simclr", CONV, 16, 32, 3)
    tasks = [tiny] if options.small else [replace(tiny, batch=batch) for batch in (64, 1024, 2048)]
    if not options.small:
        tasks += [Task("", method, RESNET, 32, 32, 2) for method in ("simclr", "moco")]
    for task in tasks:
        network = "ResNet-18" if task.backbone == RESNET else "small CNN"
        case = Case(f"{task.method}, {network}, batch {task.batch}")
        for side, train in sides(task, peers, options).items():
            case.bytes[side] = peak_bytes(train, options.device)
        if task.batch > 64:
            case.bytes[f"{OURS}, micro_batch 64"] = peak_bytes(
                lambda task=task: ours(task, {"train.micro_batch": 64}), options.device
            )  # type: ignore[misc]
        report.add(case)


if __name__ == "__main__":
    main(__doc__ or "", "memory", measure)
