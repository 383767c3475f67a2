"""Training end to end: 32x32 JPEG files to steps of MoCo on a small network; seconds for a step with its data.

contralex chooses its threads and workers itself. The hand-written loop and lightly under Lightning get one worker and
torch's own number of threads, which was the best of their settings on two cores. ``floor`` is the hand-written loop on
data that are there already.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import DataLoader

from benchmarks.loader import Files, Twice, open_with_pil
from benchmarks.measuring import OURS, Options, Peers, Report, compare, main
from benchmarks.photographs import SMALL, write_folder
from benchmarks.ready import CLOCK
from benchmarks.step import Task, by_hand, encoder, recipe, train_text
from benchmarks.views import NORMAL, torchvision_moco

VIEWS = """\
  views:
    kind: crops
    groups:
      crops:
        count: 2
        augment:
          order: [crop, jitter, gray, flip]
          crop: {size: 32, scale: [0.2, 1]}
          jitter: {brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, p: 0.8}
          gray: {p: 0.2}
          flip: {p: 0.5}
          normalize: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
"""
CONV = "{kind: conv, widths: [32, 64, 64, 128, 256], strides: [1, 2, 1, 2, 2]}"


def measure(options: Options, report: Report, peers: Peers) -> None:
    task = Task("files to steps, 32 px", "moco", CONV, 32, 32, 6 if options.small else 250)
    with tempfile.TemporaryDirectory() as name:
        root = write_folder(Path(name, "train"), (2 if options.small else 4) * task.count, SMALL)
        report.add(compare(task.name, sides(task, root, peers, options), min(options.rounds, 5)))


def sides(task: Task, root: Path, peers: Peers, options: Options) -> dict[str, Callable[[], float]]:
    def with_data(train: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            train()
            return CLOCK.mean_seconds()

        return run

    files = sorted(root.rglob("*.jpg"))
    found = {
        OURS: with_data(lambda: ours(task, root.parent)),
        "by hand": with_data(lambda: by_hand(task, options, loader(files, Twice(torchvision_moco(32, False)), task))),
        "floor": lambda: by_hand(task, options),
    }
    lightly, lightning = (
        peers.load("lightly.transforms", "lightly"),
        peers.load("pytorch_lightning", "pytorch-lightning"),
    )
    if lightly and lightning:
        from benchmarks.lightning import train

        theirs = lightly.MoCoV2Transform(
            input_size=32, cj_hue=0.1, gaussian_blur=0.0, normalize={"mean": NORMAL[0], "std": NORMAL[1]}
        )
        found["lightly"] = with_data(lambda: train(task, encoder(task), options, loader(files, theirs, task)))
    return found


def ours(task: Task, root: Path) -> None:
    CLOCK.start(1)
    text = recipe(task).replace("  views: {kind: ready}\n", VIEWS)
    head, tail = text.split("data: {kind: ready")
    text = f"{head}data: {{kind: image_folder, root: {root}}}\n{tail.split(chr(10), 1)[1]}"
    chosen = [line for line in text.splitlines() if line.split(":")[0].strip() not in ("workers", "threads")]
    train_text("\n".join(chosen))


def loader(files: list[Path], pipeline: Callable[..., list[object]], task: Task) -> DataLoader[list[object]]:
    return DataLoader(Files(files, pipeline, open_with_pil), task.batch, shuffle=True, drop_last=True, num_workers=1)


if __name__ == "__main__":
    main(__doc__ or "", "end_to_end", measure)
