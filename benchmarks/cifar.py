"""Accuracy against time on photographs of 32x32: nine methods, contralex beside lightly's modules under Lightning.

python -m benchmarks.cifar --data DIR                       ResNet-18, all images, 200 epochs, 3 seeds: for a GPU
python -m benchmarks.cifar --data DIR --form gpu-short      SimCLR and MoCo v2, one seed: for eight minutes of a GPU
python -m benchmarks.cifar --data DIR --form cores          10,000 images, a small network, 8 epochs: for two cores
python -m benchmarks.cifar --data DIR --form tiny           300 images, 1 epoch, 1 seed: to see that it runs

DIR has ``train/`` and ``test/``, each with a folder for each class, such as CIFAR-10 as JPEG files. Both sides get the
same files, network, first weights of it, batch, augmentation, epochs and seeds: the preset ``cifar`` of each recipe,
which is the setting of lightly's own benchmark. kNN (k 200, temperature .1) is measured by one function for both, on
the backbone's features. Minutes are of training alone; between two evaluations time is taken to pass evenly.

With ``--minutes``, which ``gpu-short`` has from the start, a method has as many epochs as the slower side trains in so
many minutes, by a first run of one epoch on each. The learning rate falls over that number of epochs.

What is done lies in ``--out``, a file for each method, side and seed. Started again, it goes on with the rest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import contralex
from benchmarks.measuring import describe_machine

METHODS = {
    "simclr": "simclr-v1",
    "moco": "moco-v2",
    "byol": "byol",
    "simsiam": "simsiam",
    "swav": "swav",
    "barlow": "barlow",
    "vicreg": "vicreg",
    "dino": "dino",
    "nnclr": "nnclr",
}
SIDES = ("contralex", "lightly")
PUBLISHED = {  # kNN top-1 of lightly's benchmark of CIFAR-10: ResNet-18, batch 512, 200 epochs
    "simclr": 0.828,
    "moco": 0.850,
    "byol": 0.872,
    "simsiam": 0.814,
    "swav": 0.833,
    "barlow": 0.827,
    "dino": 0.862,
    "nnclr": 0.836,
}
CONV: dict[str, Any] = {"kind": "conv", "widths": [32, 64, 128], "strides": [2, 2, 2]}


@dataclass(frozen=True)
class Form:
    """How much is trained. ``images``: of the training split, None for all. ``points``: evaluations of a run."""

    images: int | None
    backbone: dict[str, Any] | None
    batch: int
    epochs: int
    seeds: int
    points: int
    precision: str = "fp32"
    minutes: float | None = None
    """Of training, for each method and side; None: ``epochs`` are trained."""
    methods: tuple[str, ...] = tuple(METHODS)

    @property
    def is_published(self) -> bool:
        """Whether the published figures, of 200 epochs on all images, are of the same training."""
        return self.images is None and self.minutes is None

    @property
    def memory(self) -> int:
        """Keys in a queue: the preset's, or a quarter of the images where they are few."""
        return 8192 if self.images is None else max(self.batch, self.images // 4 // self.batch * self.batch)

    @property
    def k(self) -> int:
        return 200 if self.images is None else min(200, self.images // 10)


FORMS = {
    "gpu": Form(None, None, 512, 200, 3, 10),
    "gpu-short": Form(None, None, 512, 1, 1, 4, "bf16", 1.2, ("simclr", "moco")),
    "cores": Form(10_000, CONV, 128, 8, 3, 4),
    "tiny": Form(300, CONV, 32, 1, 1, 1, "bf16"),
}


@dataclass(frozen=True)
class Job:
    method: str
    side: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}-{self.side}-{self.seed}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cifar", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="A folder with train/ and test/.")
    parser.add_argument("--form", choices=sorted(FORMS), default="gpu", help="How much is trained.")
    parser.add_argument("--methods", nargs="*", choices=sorted(METHODS), help="Some of the methods.")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=list(SIDES), help="One side alone.")
    parser.add_argument("--minutes", type=float, help="Minutes of training for each run, which set its epochs.")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar"), help="The folder of what is done.")
    parser.add_argument("--plot", type=Path, help="Draw accuracy over minutes into this SVG file.")
    arguments = parser.parse_args()
    form = FORMS[arguments.form]
    if arguments.minutes is not None:
        form = replace(form, minutes=arguments.minutes)
    out = arguments.out / arguments.form
    if arguments.minutes is not None:
        out = arguments.out / f"{arguments.form}-{arguments.minutes:g}-minutes"  # other minutes are other trainings
    data = subset(arguments.data, out / "data", form)
    for seed in range(form.seeds):  # seed after seed, and both sides in turn, so that a slow hour slows both
        for method in arguments.methods or form.methods:
            fitted = fit(form, method, arguments.sides, data, out)
            for side in arguments.sides:
                run(Job(method, side, seed), fitted, data, out)
    results = collect(out)
    (out / "cifar.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    for line in table(results, form):
        print(line)
    if arguments.plot is not None:
        draw(results, arguments.plot, form)


def subset(whole: Path, folder: Path, form: Form) -> Path:
    """The folder to train on: ``whole`` itself, or copies of its first images, as many of each class."""
    for part in ("train", "test"):
        if not (whole / part).is_dir():
            raise SystemExit(f"--data: {whole} has no folder {part}; give a folder with train/ and test/")
    if form.images is None:
        return whole
    done = folder / "complete"
    if not done.exists():
        for part, count in (("train", form.images), ("test", form.images // 5)):
            classes = sorted(each for each in (whole / part).iterdir() if each.is_dir())
            for each in classes:
                target = folder / part / each.name
                target.mkdir(parents=True, exist_ok=True)
                for file in sorted(each.iterdir())[: -(-count // len(classes))]:
                    shutil.copyfile(file, target / file.name)
        done.write_text("", "utf-8")
    return folder


def fit(form: Form, method: str, sides: Sequence[str], data: Path, out: Path) -> Form:
    """The form with as many epochs as its minutes allow on the slower side; the same again when it is started again."""
    if form.minutes is None:
        return form
    file = out / f"{method}.epochs"
    if not file.exists():
        first = replace(form, epochs=1, points=1)
        for side in sides:
            run(Job(method, side, 0), first, data, out / "first")
        found = [each for each in collect(out / "first") if each["method"] == method and each["side"] in sides]
        if not found:  # the one side that was asked for is not installed
            return form
        slowest = max(each["points"][-1]["minutes"] for each in found)
        file.write_text(f"{max(1, int(form.minutes / slowest))}\n", "utf-8")
    epochs = int(file.read_text("utf-8"))
    print(f"{method}: {epochs} epochs in {form.minutes} minutes of the slower side", flush=True)
    return replace(form, epochs=epochs, points=min(form.points, epochs))


def run(job: Job, form: Form, data: Path, out: Path) -> None:
    """Trains one job, unless it is done. A run of contralex's that was stopped goes on."""
    file = out / f"{job.name}.json"
    if file.exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    print(f"{job.name} ...", flush=True)
    if job.side == "contralex":
        points = train_ours(job, form, data, out / "runs" / job.name)
    else:
        try:
            from benchmarks.cifar_lightly import train
        except ImportError as error:
            print(f"{error.name} is not installed, and lightly's side is left out", flush=True)
            return
        points = train(job, form, data)
    found = {"method": job.method, "side": job.side, "seed": job.seed, "machine": describe_machine(), "points": points}
    file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"{job.name}: kNN {100 * points[-1]['top1']:.1f} after {points[-1]['minutes']:.1f} minutes", flush=True)


def settings(job: Job, form: Form) -> dict[str, Any]:
    """What is set beside the preset ``cifar``."""
    sets: dict[str, Any] = {
        "train.seed": job.seed,
        "train.epochs": form.epochs,
        "train.precision": form.precision,
        "train.batch_size": form.batch,
        "eval.knn.k": form.k,
        "eval.knn.baselines": False,
    }
    if form.backbone is not None:
        sets["method.encoder.backbone"] = form.backbone
    if job.method == "moco":
        sets |= {"method.negatives.size": form.memory, "train.batch_norm": form.batch // 8}
    if job.method == "nnclr":
        sets["method.targets.size"] = form.memory
    if job.method == "vicreg":
        sets["train.optimizer.lr.warmup_epochs"] = min(10, form.epochs / 10)
    return sets


def train_ours(job: Job, form: Form, data: Path, folder: Path) -> list[dict[str, float]]:
    every = max(1, form.epochs // form.points)
    sets = settings(job, form) | {"eval.knn.every": every}
    recipe, is_begun = METHODS[job.method], (folder / "spec.yaml").exists()
    found = contralex.train(recipe, preset="cifar", data=data, sets=sets, out=folder, resume=is_begun)
    minutes = found.results["seconds"] / 60
    points = [
        {"epoch": line["epoch"], "minutes": minutes * line["epoch"] / form.epochs, "top1": line["knn_top1"]}
        for line in found.metrics()
        if "knn_top1" in line
    ]
    last = found.results["knn"]["this run"]["top1"]
    return [*points, {"epoch": form.epochs, "minutes": minutes, "top1": last}]


def collect(out: Path) -> list[dict[str, Any]]:
    """All jobs that are done."""
    files = (file for file in sorted(out.glob("*.json")) if file.name != "cifar.json")
    return [json.loads(file.read_text("utf-8")) for file in files]


def table(results: list[dict[str, Any]], form: Form) -> Iterator[str]:
    """A row for each method: kNN top-1 and minutes of each side, mean ± deviation over the seeds."""
    is_published = form.is_published
    yield "| method | contralex kNN | minutes | lightly kNN | minutes |" + (" published |" if is_published else "")
    yield "|---|---|---|---|---|" + ("---|" if is_published else "")
    for method in METHODS:
        cells = []
        for side in SIDES:
            ends = [each["points"][-1] for each in results if (each["method"], each["side"]) == (method, side)]
            cells += [_mean([100 * end["top1"] for end in ends]), _mean([end["minutes"] for end in ends])]
        if is_published:
            cells.append(f"{100 * PUBLISHED[method]:.1f}" if method in PUBLISHED else "")
        if any(cells[:4]):
            yield f"| {' | '.join([method, *cells])} |"


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def draw(results: list[dict[str, Any]], file: Path, form: Form) -> None:
    """A panel for each method: kNN top-1 over minutes of training, with a band of one deviation over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9), layout="constrained")
    panels = figure.subplots(3, 3, squeeze=False)
    for (method, recipe), axes in zip(METHODS.items(), panels.flat, strict=True):
        for color, side in enumerate(SIDES):
            runs = [each["points"] for each in results if (each["method"], each["side"]) == (method, side)]
            if not runs:
                continue
            at = list(zip(*runs, strict=False))  # the same epochs of all seeds
            minutes = [statistics.mean(point["minutes"] for point in points) for points in at]
            means = [100 * statistics.mean(point["top1"] for point in points) for points in at]
            apart = [100 * statistics.pstdev([point["top1"] for point in points]) for points in at]
            axes.plot(minutes, means, color=f"C{color}", marker=".", label=side)
            low, high = ([m + sign * d for m, d in zip(means, apart, strict=True)] for sign in (-1, 1))
            axes.fill_between(minutes, low, high, color=f"C{color}", alpha=0.2)
        if form.is_published and method in PUBLISHED:
            axes.axhline(100 * PUBLISHED[method], color="black", linewidth=0.6, linestyle="--", label="published")
        axes.set_title(recipe, fontsize=9)
        axes.set_xlabel("minutes of training", fontsize=8)
        axes.set_ylabel("kNN top-1, %", fontsize=8)
    panels.flat[0].legend(fontsize=8)
    figure.savefig(file, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
