"""A run's folder as an object: its results and metrics, its encoder, and what can be done with it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.settings import PathLike, Sets, path_text, set_texts
from contralex.errors import ContralexError, command_to_resume
from contralex.files import expand_user, read_json
from contralex.recipes import yaml
from contralex.reporting.limits import IMAGES
from contralex.training.checkpoints import read
from contralex.training.folders import SPEC

if TYPE_CHECKING:
    from torch import nn

    from contralex.api.clustering import By, Clusters
    from contralex.api.duplicates import Duplicates
    from contralex.api.embedding import Embeddings
    from contralex.api.exporting import Export, ExportFormat
    from contralex.api.forking import Fork
    from contralex.api.reporting import Report
    from contralex.api.searching import Query, SearchResult
    from contralex.api.transform import Transform
    from contralex.evaluation.base import Accuracy, Measurement, Measures
    from contralex.evaluation.features import Which
    from contralex.evaluation.records import Evaluation
    from contralex.lookup.slots import Encoder
    from contralex.plugins.spec import Spec


class Run(os.PathLike[str]):
    """A run on disk: what :func:`contralex.train` and :func:`contralex.open` return. It prints as a few lines.

    ``path``: what was opened, a run's folder or one checkpoint's; ``folder``: the run's. Every function that takes a
    run's path takes this object as well. Nothing is read before it is asked for.

    >>> import contralex
    >>> run = contralex.open("runs/my-run")
    >>> run.metrics()[0]["step"], run.transform("photos/cat/0.png").shape
    (1, torch.Size([3, 32, 32]))
    """

    def __init__(self, path: PathLike, *, allow_code: bool = False) -> None:
        self.path = expand_user(str(path_text(path)))
        self.allow_code = allow_code
        if not self.path.exists():
            raise ContralexError(f"there is no folder {self.path}; give a run's folder, or one of its checkpoints")
        self.folder = read.run_folder(self.path)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The whole spec, as :func:`contralex.resolve` gives it in ``data``."""
        if (self.folder / SPEC).is_file():
            found: dict[str, Any] = yaml.read((self.folder / SPEC).read_text("utf-8"), str(self.folder / SPEC)).data
            return found
        return dict(read.open_checkpoint(self.path, ()).state.spec)

    @property
    def results(self) -> dict[str, Any]:
        """What ``results.json`` holds: steps, seconds, losses, and the accuracies of all evaluators."""
        file = self.folder / "results.json"
        if not file.is_file():
            raise ContralexError(
                f"{self.folder} has no results yet: the run has not ended. Go on with it:"
                + command_to_resume(self.folder)
            )
        try:
            found: dict[str, Any] = read_json(file)
        except (OSError, ValueError) as error:
            raise ContralexError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return found

    def metrics(self) -> list[dict[str, Any]]:
        """What was logged in training, a dict for each line of ``metrics.jsonl``: ``step``, ``epoch``, ``loss``, ...

        ``pandas.DataFrame(run.metrics())`` makes a table of it.
        """
        from contralex.training.health import read_lines

        file = self.folder / "metrics.jsonl"
        return read_lines(file) if file.is_file() else []

    def evaluate(self, name: str, data: PathLike | None = None, sets: Sets = None) -> Evaluation[Accuracy]:
        """The accuracy by one evaluator, ``knn``, ``linear``, ``classify`` or a plugin's, beside its baselines.

        ``data``: other data than the run's, as ``--data``. ``sets``: other settings, such as ``{"eval.knn.k": 50}``.
        """
        from contralex.training.evaluate_run import evaluate

        with progress.listening("stderr"):
            return evaluate(name, self.path, path_text(data), set_texts(sets), allow_code=self.allow_code)

    def evaluations(self) -> list[dict[str, Any]]:
        """The results that are kept in the run's folder, of all its checkpoints, the newest first: ``evaluation``,
        ``figures``, ``protocol``, ``data``, ``checkpoint``, ``versions``, ``text``, ...

        ``pandas.json_normalize(run.evaluations())`` makes a table of them.
        """
        from contralex.evaluation.records import read_records

        return read_records(self.folder)

    def knn(self, data: PathLike | None = None, sets: Sets = None) -> Evaluation[Accuracy]:
        """The accuracy of the nearest neighbours among the features, beside the untrained encoder and raw pixels."""
        return self.evaluate("knn", data, sets)

    def linear(self, data: PathLike | None = None, sets: Sets = None) -> Evaluation[Accuracy]:
        """The accuracy of a linear classifier on the frozen features, beside the untrained encoder and raw pixels."""
        return self.evaluate("linear", data, sets)

    def fork(
        self,
        step: int,
        *,
        sets: Sets = None,
        steps: int | None = None,
        data: PathLike | None = None,
        out: PathLike | None = None,
        processes: int = 1,
        evaluate: bool = True,
    ) -> Fork:
        """Go on from a step with the same batches and some values changed; see :func:`contralex.fork`."""
        from contralex.api.forking import fork

        return fork(
            self.folder,
            step,
            sets=sets,
            steps=steps,
            data=data,
            out=out,
            processes=processes,
            evaluate=evaluate,
            allow_code=self.allow_code,
        )

    def train_linear(
        self,
        protocol: str,
        data: PathLike | None = None,
        *,
        rates: Sequence[float] = (),
        decays: Sequence[float] = (),
        epochs: int | None = None,
        crops: bool = True,
        features: Which = "backbone",
        seed: int = 0,
        sets: Sets = None,
    ) -> Evaluation[Measures]:
        """The accuracy of a linear classifier that is trained as a paper's code does.

        ``protocol``: ``moco-v2``, ``simclr``, ``byol``, ``swav``, ``barlow-twins``, ``vicreg``, ``simsiam``,
        ``moco-v3``, ``dino`` or ``mae``. ``rates`` and ``decays``: learning rates and weight decays in place of the
        protocol's, all pairs of which are trained at once. ``epochs``: in place of the protocol's. ``crops=False``: on
        the features of the plain images, which are extracted once, and not of random crops.
        """
        from contralex.evaluation.linear_protocols import find_protocol
        from contralex.evaluation.linear_training import LinearTraining

        texts = set_texts(sets)
        unused = next((text for text in texts if text.startswith("eval.linear")), None)
        if unused is not None:
            raise ContralexError(
                f"--set {unused}: it is a setting of the logistic regression. The training of {protocol} is changed by "
                "--rates, --decays and --epochs"
            )
        made = LinearTraining(find_protocol(protocol), rates, decays, epochs, crops, features, seed)
        return self._measure(made, data, texts)

    def quality(
        self,
        data: PathLike | None = None,
        *,
        features: Which = "backbone",
        samples: int = 10_000,
        drawn: int = 1000,
        draws: int = 10,
        neighbours: int = 10,
        sets: Sets = None,
    ) -> Evaluation[Measures]:
        """Figures without labels: RankMe, effective rank, α-ReQ, uniformity, alignment, neighbours' overlap, LiDAR.

        ``samples``: images at most. ``drawn`` of them are seen in ``draws`` random views each. ``neighbours``: whose
        overlap is measured.
        """
        from contralex.evaluation.measurements import Quality

        return self._measure(Quality(features, samples, drawn, draws, neighbours), data, sets)

    def retrieval(
        self,
        data: PathLike | None = None,
        *,
        features: Which = "backbone",
        recall: Sequence[int] = (1, 5, 10),
        gallery: Literal["test", "train"] = "test",
        sets: Sets = None,
    ) -> Evaluation[Measures]:
        """Mean average precision, and recall at the numbers of ``recall``, where images of one class are to be found.

        ``gallery``: what is searched, the other test images or the training images.
        """
        from contralex.evaluation.measurements import Retrieval

        return self._measure(Retrieval(features, recall, gallery), data, sets)

    def few_label(
        self,
        data: PathLike | None = None,
        *,
        features: Which = "backbone",
        fractions: Sequence[float] = (0.01, 0.1),
        subset: PathLike | None = None,
        shots: Sequence[int] = (1, 5),
        ways: int = 5,
        queries: int = 15,
        episodes: int = 600,
        svm: Sequence[int] = (),
        seed: int = 0,
        sets: Sets = None,
    ) -> Evaluation[Measures]:
        """What few labels reach on frozen features.

        A linear probe learns from ``fractions`` of the labels, or from the files that the list ``subset`` names.
        ``episodes`` of ``ways`` classes have each number of ``shots`` images to learn from, and ``queries`` to
        classify.
        SVMs learn from each number ``svm`` of images of a class.
        """
        from contralex.evaluation.measurements import FewLabel

        file = None if subset is None else expand_user(str(path_text(subset)))
        made = FewLabel(features, fractions, file, shots, ways, queries, episodes, svm, seed)
        return self._measure(made, data, sets)

    def segmentation(
        self,
        folder: PathLike,
        *,
        positions: int = 100_000,
        weight_decay: float = 1e-3,
        ignored: int = 255,
        seed: int = 0,
        sets: Sets = None,
    ) -> Evaluation[Measures]:
        """Mean intersection over union of a linear classifier on the positions of the backbone's feature map.

        ``folder``: ``images`` and ``masks`` of the same names, or ``train`` and ``val`` that hold them. A mask has one
        channel, whose values are the classes, and ``ignored`` where there is none. ``positions``: how many to learn
        from, at most.
        """
        from contralex.evaluation.segmentation import Segmentation
        from contralex.kinds.datasets.specs import ImageFolderSpec

        root = expand_user(str(path_text(folder)))
        made = Segmentation(root, positions, weight_decay, ignored, seed)
        return self._measure(made, ImageFolderSpec(root=str(root), labels="none"), sets)

    def transfer(
        self,
        to: str | Sequence[str] = ("cifar10", "cifar100", "flowers102", "oxford_pets", "food101", "dtd", "aircraft"),
        *,
        root: PathLike = "data",
        download: bool = False,
        features: Which = "backbone",
        decays: Sequence[float] = (),
        sets: Sets = None,
    ) -> dict[str, Evaluation[Measures]]:
        """kNN and a linear classifier on another data set, or several, by the names of their kinds.

        ``root``: the folder that has their files, or gets them where ``download`` is true. ``decays``: weight decays of
        the linear classifier, of which the best on a fifth of the training images is taken.
        """
        from contralex.evaluation.transfer import Transfer, data_spec

        names = [to] if isinstance(to, str) else to  # all are checked before anything is done
        specs = {name: data_spec(name, str(path_text(root)), download) for name in names}
        return {name: self._measure(Transfer(features, decays), spec, sets) for name, spec in specs.items()}

    def _measure(self, measurement: Measurement, data: PathLike | Spec | None, sets: Sets) -> Evaluation[Measures]:
        from contralex.plugins.spec import Spec
        from contralex.training.evaluate_run import measure

        given = data if isinstance(data, Spec) else path_text(data)
        with progress.listening("stderr"):
            return measure(measurement, self.path, given, set_texts(sets), allow_code=self.allow_code)

    @cached_property
    def encoder(self) -> Encoder:
        """The query encoder in evaluation mode: ``run.encoder(images)`` are embeddings (B, D), and
        ``run.encoder.features(images)`` the representation (B, F) before any projector."""
        from contralex.training.build import load_encoder

        return load_encoder(self.path, allow_code=self.allow_code)

    @cached_property
    def backbone(self) -> nn.Module:
        """The backbone of the encoder in evaluation mode, from images (B, 3, H, W) to features (B, F)."""
        from contralex.training.build import load_backbone

        return load_backbone(self.path, allow_code=self.allow_code)

    @cached_property
    def transform(self) -> Transform:
        """From an image to the encoder's input (3, H, W), as evaluation does it. It prints what it does."""
        from contralex.api.transform import load_transform

        return load_transform(self.path, allow_code=self.allow_code)

    def embed(
        self,
        data: PathLike | None = None,
        *,
        which: Which = "backbone",
        batch_size: int | None = None,
    ) -> Embeddings:
        """The features of the images in a folder; see :func:`contralex.embed`."""
        from contralex.api.embedding import embed

        return embed(self, data, which=which, batch_size=batch_size, allow_code=self.allow_code)

    def report(
        self, *, out: PathLike | None = None, data: PathLike | None = None, images: int = IMAGES, umap: bool = False
    ) -> Report:
        """Write what the run learnt into one HTML page, by default ``report.html`` in its folder; see
        :func:`contralex.report`."""
        from contralex.api.reporting import report

        return report(self, out=out, data=data, images=images, umap=umap, allow_code=self.allow_code)

    def export(self, to: ExportFormat, out: PathLike) -> Export:
        """The backbone for another library, verified before it is written; see :func:`contralex.export`."""
        from contralex.api.exporting import export

        return export(self, to, out, allow_code=self.allow_code)

    def search(
        self,
        images: Query | Sequence[Query],
        data: PathLike | None = None,
        *,
        k: int = 10,
        which: Which = "backbone",
        without_query: bool = False,
        batch_size: int | None = None,
    ) -> SearchResult:
        """The images of a folder that are nearest to given ones; see :func:`contralex.search`."""
        from contralex.api.searching import search

        return search(
            self,
            images,
            data,
            k=k,
            which=which,
            without_query=without_query,
            batch_size=batch_size,
            allow_code=self.allow_code,
        )

    def cluster(
        self,
        data: PathLike | None = None,
        *,
        clusters: int | None = None,
        by: By = "kmeans",
        min_size: int | None = None,
        seed: int = 0,
        which: Which = "backbone",
        batch_size: int | None = None,
    ) -> Clusters:
        """Clusters of the images of a folder; see :func:`contralex.cluster`."""
        from contralex.api.clustering import cluster

        return cluster(
            self,
            data,
            clusters=clusters,
            by=by,
            min_size=min_size,
            seed=seed,
            which=which,
            batch_size=batch_size,
            allow_code=self.allow_code,
        )

    def duplicates(
        self,
        data: PathLike | None = None,
        *,
        threshold: float = 0.95,
        which: Which = "backbone",
        batch_size: int | None = None,
    ) -> Duplicates:
        """Copies and near-duplicates among the images of a folder; see :func:`contralex.duplicates`."""
        from contralex.api.duplicates import duplicates

        return duplicates(
            self, data, threshold=threshold, which=which, batch_size=batch_size, allow_code=self.allow_code
        )

    def __repr__(self) -> str:
        return "\n".join([f"Run {self.spec.get('name', '')} in {self.path}", *(f"  {line}" for line in self._state())])

    def _state(self) -> list[str]:
        if not (self.folder / "results.json").is_file():
            last = (self.metrics() or [{"step": 0}])[-1]
            return [f"not ended: step {last['step']:,}"]
        results = self.results
        epochs = f"{results['epochs']} epoch{'' if results['epochs'] == 1 else 's'}"
        lines = [f"{results['steps']:,} steps, {epochs}, {results['seconds']:.0f} s"]
        if results.get("last_loss") is not None:
            lines.append(f"loss {results['first_loss']:.3f} → {results['last_loss']:.3f}")
        for by, name in (("knn", "kNN"), ("linear", "linear")):
            if by in results:
                lines.append(f"{name} top-1: " + ", ".join(_accuracies(results[by])))
        return lines


def _accuracies(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [f"{who} {result['top1']:.1%}" for who, result in found.items()]


@checked
def open(path: PathLike, *, allow_code: bool = False) -> Run:
    """A run by its folder, or by the folder of one of its checkpoints.

    ``allow_code``: the Python files that its spec names in ``code`` may be run.

    >>> import contralex
    >>> run = contralex.open("runs/my-run")
    >>> run.results["name"]
    'moco-v2'
    """
    run = Run(path, allow_code=allow_code)
    if not any((run.folder / name).exists() for name in (SPEC, "checkpoints")) and run.folder == run.path:
        raise ContralexError(f"{run.path} holds no {SPEC} and no checkpoints, so it is not a run's folder")
    return run
