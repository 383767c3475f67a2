"""The two runs that follow a pre-training, as specs: fine-tuning on some labels, and distilling what that makes.

Both are look-ups like any other. A classifier is an encoder that ends in one number for each class, and its dictionary
are the classes; fine-tuning looks the sample's label up in it, and distillation what a frozen teacher says.

Source: SimCLR v2 (arXiv:2006.10029), sections 2 and 3, which is what the settings below are, too; code:
google-research/simclr ``README.md`` and ``run.py``. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contralex.errors import ContralexError, remedy
from contralex.plugins.registry import registry
from contralex.plugins.spec import Spec

Data = dict[str, Any]

# The paper's settings, where there are at least so many batches of the paper's size in an epoch.
_BATCHES = 10
_FINETUNE_BATCH, _DISTILL_BATCH = 1024, 4096
_FINETUNE_LR = 0.005  # × √B = 0.16; the paper has 0.002 for larger networks (wider, or with selective kernels)
_DISTILL_LR, _DISTILL_EPOCHS, _WARMUP = 0.1, 400, 0.05  # × √B = 6.4; warm-up in the first 5 %
# Smaller sets: LARS is for large batches, so SGD, in at least so many steps.
_SMALL_BATCH = 64
_SMALL_LR = 0.05  # × τ²: a softmax with temperature τ divides slopes by τ, and curvature by τ²
_SMALL_STEPS = {"finetune": 600, "distill": 1500}
# Noisy Student (arXiv:1911.04252), section 3.1: two operations of magnitude 27, and stochastic depth of 0.2. On small
# images the code has a magnitude of 5, and moves and cuts out an eighth of the image's side.
_RAND_AUGMENT = {"ops": 2, "magnitude": 27, "law": "tensorflow", "translate": 100, "cutout": 40}
_SMALL_RAND_AUGMENT = {"ops": 2, "magnitude": 5, "law": "tensorflow"}
_SMALL_IMAGE = 96  # pixels, below which an image is small
_DROP_PATH = 0.2

_KEPT_OF_TRAIN = ("precision", "seed", "workers", "log_every", "trackers", "on_hook_error", "on_bad_loss")


@dataclass(frozen=True)
class Student:
    """What is distilled into. ``encoder``: an encoder's block, of which ``from_layer`` projector layers stay;
    ``checkpoint``: where its first weights are from; ``code``: the files that its spec names."""

    encoder: Data
    from_layer: int = 0
    checkpoint: str | None = None
    code: tuple[Data, ...] = ()


def finetuned(
    pretrained: Mapping[str, Any],
    checkpoint: str,
    *,
    data: Data,
    share: float,
    classes: int,
    samples: int,
    from_layer: int | None = None,
) -> Data:
    """The run that trains the encoder of ``pretrained`` (a resolved spec), and a layer of ``classes`` logits on it.

    ``data``: all data, of whose labels a ``share`` is used, which is ``samples``. ``from_layer``: how many layers of
    the projector stay; None for the paper's choice, one, and none where all labels are there.
    """
    encoder = pretrained["method"]["encoder"]
    if from_layer is None:
        from_layer = int(share < 1 and len(encoder.get("projector", ())) > 1)
    made, last = classifier(encoder, classes, from_layer)
    return {
        **_common(pretrained, "finetuned", f"fine-tuned on {100 * share:.3g} % of the labels"),
        "init": {"checkpoint": checkpoint, "skip": [f"{last}.*"]},
        "method": {
            "views": _plain_views(pretrained["method"]["views"]),
            "encoder": made,
            "key_encoder": {"kind": "shared", "gradient": False},
            "negatives": {"kind": "classes", "count": classes},
            "targets": {"kind": "class_label"},
            "loss": {"kind": "info_nce", "temperature": 1.0},  # over the classes: the usual cross-entropy
            "matches": "self",
        },
        "data": {"kind": "labelled", "of": data, "share": share},
        "train": _finetune_settings(pretrained, share, samples, last),
        "eval": _judged(pretrained, samples),
    }


def distilled(
    teacher: Mapping[str, Any],
    checkpoint: str,
    *,
    student: Student,
    samples: int,
    temperature: float,
    hard: bool = False,
    threshold: float | None = None,
    noisy: bool = False,
) -> Data:
    """The run in which a student learns what ``teacher`` (a fine-tuned run's resolved spec) says of all its data, of
    which there are ``samples``, without labels.

    ``noisy``: the student sees strong views (and drops paths, where its backbone can), the teacher plain images.
    """
    method = teacher["method"]
    negatives = _spec("negatives", method["negatives"])
    if negatives is None or "classes" not in negatives.offers():
        raise ContralexError(
            f"{checkpoint} is no classifier, so it has nothing to teach; fine-tune it first:"
            + remedy("contralex", "finetune", checkpoint, "--labels", "0.1")
        )
    made, last = classifier(student.encoder, method["negatives"]["count"], student.from_layer)
    if noisy and "drop_path" in made["backbone"]:
        made["backbone"] = {**made["backbone"], "drop_path": max(made["backbone"]["drop_path"] or 0.0, _DROP_PATH)}
    data = whole_data(teacher["data"])
    start = {"checkpoint": student.checkpoint, "skip": [f"{last}.*"]} if student.checkpoint is not None else None
    code = [*teacher.get("code", ()), *(file for file in student.code if file not in teacher.get("code", ()))]
    return {
        **_common(teacher, "distilled", "distilled" + (" into a noisy student" if noisy else "")),
        "init": start,
        **({"code": code} if code else {}),
        "method": {
            "views": _noisy_views(method["views"]) if noisy else _plain_views(method["views"]),
            "encoder": made,
            "key_encoder": {"kind": "frozen", "checkpoint": checkpoint},
            "negatives": method["negatives"],
            "targets": {
                "kind": "teacher_logits",
                "temperature": temperature,
                "hard": hard,
                "threshold": threshold,
            },
            "loss": {"kind": "soft_cross_entropy", "temperature": 1.0 if hard else temperature},
            "matches": ["0->1"] if noisy else "self",
        },
        "data": data,
        "train": _distill_settings(teacher, samples, 1.0 if hard else temperature),
        "eval": _judged(teacher, samples),
    }


def classifier(encoder: Mapping[str, Any], classes: int, from_layer: int) -> tuple[Data, str]:
    """An image encoder's block that ends in logits after ``from_layer`` layers of its projector, and the name of the
    new layer among the encoder's modules."""
    spec = _spec("encoder", encoder)
    made = spec.with_logits(classes, from_layer) if spec is not None else None
    if made is None:
        raise ContralexError(
            f"an encoder of kind {encoder['kind']} cannot be made a classifier here; write the run as a recipe of your "
            "own."
        )
    block, last = made
    return block.model_dump(mode="json"), last


def whole_data(data: Data) -> Data:
    """The data set itself, where a run was trained on some of its samples."""
    spec = _spec("data", data)
    return data if spec is None or spec.whole_data() is spec else spec.whole_data().model_dump(mode="json")


def _spec(slot: str, block: Mapping[str, Any]) -> Spec | None:
    kind = registry().find(slot, block["kind"])
    return None if kind is None else kind.model_validate(block)


def _common(of: Mapping[str, Any], suffix: str, what: str) -> Data:
    kept = {name: of[name] for name in ("code", "plugins") if name in of}
    return {"schema": 1, "name": f"{of['name']}-{suffix}", "summary": f"{of['name']}, {what}", **kept}


def _first_augment(views: Mapping[str, Any]) -> Data:
    spec = _spec("views", views)
    augments = spec.augments() if spec is not None else None
    if not augments:
        raise ContralexError(
            f"views of kind {views['kind']} have no crop to take over, so write the run as a recipe of your own."
        )
    return augments[0].model_dump(mode="json")


def _plain_views(views: Mapping[str, Any]) -> Data:
    """One view, cropped and flipped as before, and nothing else."""
    augment = _first_augment(views)
    kept = {name: augment[name] for name in ("crop", "flip", "normalize") if augment.get(name) is not None}
    order = [name for name in ("crop", "flip") if name in kept]
    return {"kind": "crops", "groups": {"images": {"count": 1, "augment": {"order": order, **kept}}}}


def _noisy_views(views: Mapping[str, Any]) -> Data:
    """The student's view, cropped, flipped and hit by RandAugment; and the teacher's, the whole image."""
    strong = _plain_views(views)["groups"]["images"]["augment"]
    plain = {name: strong[name] for name in ("crop", "normalize") if name in strong}
    plain["crop"] = {**plain["crop"], "scale": [1.0, 1.0]}
    strong = {
        **strong,
        "order": [*strong["order"], "rand_augment"],
        "rand_augment": _rand_augment(strong["crop"]["size"]),
    }
    groups = {"student": {"key": False, "augment": strong}, "teacher": {"augment": {"order": ["crop"], **plain}}}
    return {"kind": "crops", "groups": groups}


def _rand_augment(size: int) -> Data:
    if size >= _SMALL_IMAGE:
        return _RAND_AUGMENT
    eighth = max(size // 8, 1)
    return {**_SMALL_RAND_AUGMENT, "translate": eighth, "cutout": eighth}


def _finetune_settings(of: Mapping[str, Any], share: float, samples: int, last: str) -> Data:
    epochs = 60 if share <= 0.01 else 30
    if samples < _BATCHES * _FINETUNE_BATCH:
        return _small(of, "finetune", samples, epochs, 1.0)
    optimizer = _lars({"kind": "cosine", "start": _FINETUNE_LR}, 0.0, f"encoder.{last}.*")
    return {**_settings(of), "epochs": epochs, "batch_size": _FINETUNE_BATCH, "optimizer": optimizer}


def _distill_settings(of: Mapping[str, Any], samples: int, temperature: float) -> Data:
    if samples < _BATCHES * _DISTILL_BATCH:
        return _small(of, "distill", samples, 30, temperature)
    rate = {"kind": "cosine", "start": _DISTILL_LR, "warmup_epochs": _DISTILL_EPOCHS * _WARMUP}
    settings = {"epochs": _DISTILL_EPOCHS, "batch_size": _DISTILL_BATCH, "optimizer": _lars(rate, 1e-4)}
    return {**_settings(of), **settings}


def _small(of: Mapping[str, Any], what: str, samples: int, epochs: int, temperature: float) -> Data:
    batch = min(_SMALL_BATCH, 2 ** max(int(math.log2(max(samples, 1) / 4)), 1))  # at least four batches, of two or more
    steps = max(samples // batch, 1)
    return {
        **_settings(of),
        "epochs": max(epochs, math.ceil(_SMALL_STEPS[what] / steps)),
        "batch_size": batch,
        "optimizer": {
            "kind": "sgd",
            "nesterov": True,
            "lr": {"kind": "cosine", "start": float(f"{_SMALL_LR * temperature**2:.6g}")},
            "weight_decay": 1e-4,
        },
    }


def _settings(of: Mapping[str, Any]) -> Data:
    return {"batch_norm": "sync", **{name: of["train"][name] for name in _KEPT_OF_TRAIN}}


def _lars(rate: Data, decay: float, head: str | None = None) -> Data:
    """SimCLR's LARS, × √B. ``head``: parameters that have no trust ratio; the code leaves the classifier out."""
    groups: list[Data] = [{"match": "norm_and_bias", "weight_decay": 0.0, "trust_ratio": False}]
    if head is not None:
        groups.append({"match": head, "trust_ratio": False})
    scaling = {"rule": "sqrt", "per": 1}
    lars = {"kind": "lars", "variant": "tf", "lr": rate, "scaling": scaling, "weight_decay": decay, "groups": groups}
    return lars


def _judged(of: Mapping[str, Any], samples: int) -> Data:
    """By the logits, and by the neighbours among the samples that there are."""
    judged = of["eval"]
    knn = judged["knn"]
    if knn is not None:
        knn = {**knn, "k": min(knn["k"], samples)}
    return {"knn": knn, "classify": {}, "batch_size": judged["batch_size"]}
