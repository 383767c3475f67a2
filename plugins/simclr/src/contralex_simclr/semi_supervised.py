"""The two runs that follow a pre-training, as specs: fine-tuning on some labels, and distillation of the result.

Both are look-ups like any other. A classifier is an encoder that ends in a logit for each class, and its dictionary is
the classes: fine-tuning looks up the sample's label, and distillation the probabilities of a frozen teacher. Both
together are two look-ups of one encoding.

Source: SimCLR v2 (arXiv:2006.10029), sections 2 and 3, of which the settings below are, too; code:
google-research/simclr ``README.md`` and ``run.py``. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contralex.plugin import ContralexError, Slot, Spec, remedy

Data = dict[str, Any]

# The paper's settings, where there are at least so many batches of the paper's size in an epoch.
_BATCHES = 10
_FINETUNE_BATCH, _DISTILL_BATCH = 1024, 4096
_FINETUNE_LR = 0.005  # × √B = 0.16; the paper has 0.002 for larger networks (wider, or with selective kernels)
_DISTILL_LR, _DISTILL_EPOCHS, _WARMUP = 0.1, 400, 0.05  # × √B = 6.4; warm-up in the first 5 %
# Smaller sets: LARS is for large batches, so SGD, in at least so many steps.
_SMALL_BATCH = 64
_SMALL_LR = 0.05  # over the curvature: a softmax with temperature τ divides slopes by τ, and curvature by τ²
_SMALL_STEPS = {"finetune": 600, "distill": 1500}
# Noisy Student (arXiv:1911.04252), section 3.1: two operations of magnitude 27, and stochastic depth of 0.2. On small
# images the code has a magnitude of 5, and moves and cuts out an eighth of the image's side.
_RAND_AUGMENT = {"ops": 2, "magnitude": 27, "law": "tensorflow", "translate": 100, "cutout": 40}
_SMALL_RAND_AUGMENT = {"ops": 2, "magnitude": 5, "law": "tensorflow"}
_SMALL_IMAGE = 96  # pixels, below which an image is small
_DROP_PATH = 0.2

_KEPT = ("precision", "seed", "workers", "log_every", "trackers", "on_hook_error", "on_bad_loss")


@dataclass(frozen=True)
class Student:
    """The network that learns from a teacher. ``encoder``: an encoder's block, of which ``from_layer`` projector layers
    stay; ``checkpoint``: where its first weights are from; ``code``: the files that its spec names."""

    encoder: Data
    from_layer: int = 0
    checkpoint: str | None = None
    code: tuple[Data, ...] = ()


def derive_finetuning(
    pretrained: Mapping[str, Any],
    checkpoint: str,
    *,
    data: Data,
    fraction: float,
    classes: int,
    samples: int,
    from_layer: int | None = None,
) -> Data:
    """The run that trains the encoder of ``pretrained`` (a resolved spec), and a layer of ``classes`` logits on it.

    ``checkpoint``: where the first weights are from. ``data``: all data, of whose labels a ``fraction`` is used, that
    of ``samples`` samples. ``from_layer``: how many layers of the projector stay; None for the paper's choice, one, and
    none where all labels are used.
    """
    encoder = pretrained["method"]["encoder"]
    if from_layer is None:
        from_layer = int(fraction < 1 and len(encoder.get("projector", ())) > 1)
    made, last = add_classifier(encoder, classes, from_layer)
    return {
        **_header(pretrained, "finetuned", f"fine-tuned on {100 * fraction:.3g} % of the labels"),
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
        "data": {"kind": "labelled", "of": data, "share": fraction},
        "train": _finetune_settings(pretrained, fraction, samples, last),
        "eval": _evaluation(pretrained, samples),
    }


def derive_distillation(
    teacher: Mapping[str, Any],
    checkpoint: str,
    *,
    student: Student,
    samples: int,
    temperature: float,
    hard: bool = False,
    threshold: float | None = None,
    noisy: bool = False,
    alpha: float = 1.0,
) -> Data:
    """The run in which a student learns the probabilities that ``teacher`` (a fine-tuned run's resolved spec) gives to
    all its data, ``samples`` of them.

    ``checkpoint``: the teacher's weights. ``temperature`` divides the logits of both. ``hard``: teach the most likely
    class alone. ``threshold``: the probability of it below which a sample is left out. ``noisy``: the student sees
    strong views (and drops paths, where its backbone can), the teacher plain images. ``alpha``: the weight of these
    probabilities; the labels that the teacher learned from have the rest (Eq. 3).
    """
    method = teacher["method"]
    if "classes" not in _read_block("negatives", method["negatives"]).offers():
        raise ContralexError(
            f"{checkpoint} is no classifier, so it has nothing to teach; fine-tune it first:"
            + remedy("contralex", "finetune", checkpoint, "--labels", "0.1")
        )
    made, last = add_classifier(student.encoder, method["negatives"]["count"], student.from_layer)
    if noisy and "drop_path" in made["backbone"]:
        made["backbone"] = {**made["backbone"], "drop_path": max(made["backbone"]["drop_path"] or 0.0, _DROP_PATH)}
    data = all_data(teacher["data"])
    init = {"checkpoint": student.checkpoint, "skip": [f"{last}.*"]} if student.checkpoint is not None else None
    code = [*teacher.get("code", ()), *(file for file in student.code if file not in teacher.get("code", ()))]
    matches = ["0->1"] if noisy else "self"
    tau = 1.0 if hard else temperature
    return {
        **_header(teacher, "distilled", "distilled" + (" into a noisy student" if noisy else "")),
        "init": init,
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
            "loss": {"kind": "soft_cross_entropy", "temperature": tau},
            "matches": matches,
            **_mix_with_labels(teacher["data"], alpha, matches),
        },
        "data": data,
        "train": _distill_settings(teacher, samples, alpha / tau**2 + 1 - alpha),
        "eval": _evaluation(teacher, samples),
    }


def _mix_with_labels(data: Mapping[str, Any], alpha: float, matches: str | list[str]) -> Data:
    """A further look-up, that of the labels, with the weight 1 − α; nothing where α is 1. ``data``: the teacher's."""
    if alpha == 1:
        return {}
    used = {"share": data["share"], "seed": data["seed"]} if data["kind"] == "labelled" else {"share": 1.0}
    labels = {
        "negatives": "borrowed",
        "targets": {"kind": "class_label", **used},
        "loss": {"kind": "soft_cross_entropy", "temperature": 1.0},
        "matches": matches,
        "weight": round(1 - alpha, 12),
    }
    return {"weight": alpha, "look_ups": {"labels": labels}}


def add_classifier(encoder: Mapping[str, Any], classes: int, from_layer: int) -> tuple[Data, str]:
    """An image encoder's block that ends in logits after ``from_layer`` layers of its projector, and the name of the
    new layer among the encoder's modules."""
    made = _read_block("encoder", encoder).with_logits(classes, from_layer)
    if made is None:
        raise ContralexError(
            f"an encoder of kind {encoder['kind']} cannot be made a classifier here; write the run as a recipe of your "
            "own."
        )
    block, last = made
    return block.model_dump(mode="json"), last


def all_data(data: Data) -> Data:
    """The block of the data set itself, where a run was trained on some of its samples."""
    spec = _read_block("data", data)
    return data if spec.whole_data() is spec else spec.whole_data().model_dump(mode="json")


def _read_block(slot: str, block: Mapping[str, Any]) -> Spec:
    return Slot(slot).validate(block)


def _header(before: Mapping[str, Any], suffix: str, what: str) -> Data:
    kept = {name: before[name] for name in ("code", "plugins") if name in before}
    return {"schema": 1, "name": f"{before['name']}-{suffix}", "summary": f"{before['name']}, {what}", **kept}


def _first_augment(views: Mapping[str, Any]) -> Data:
    augments = _read_block("views", views).augments()
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
    """The student's view, cropped, flipped and changed by RandAugment; and the teacher's, the whole image."""
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


def _finetune_settings(before: Mapping[str, Any], fraction: float, samples: int, last: str) -> Data:
    epochs = 60 if fraction <= 0.01 else 30
    if samples < _BATCHES * _FINETUNE_BATCH:
        return _small_settings(before, "finetune", samples, epochs, 1.0)
    optimizer = _lars({"kind": "cosine", "start": _FINETUNE_LR}, 0.0, f"encoder.{last}.*")
    return {**_kept_settings(before), "epochs": epochs, "batch_size": _FINETUNE_BATCH, "optimizer": optimizer}


def _distill_settings(before: Mapping[str, Any], samples: int, curvature: float) -> Data:
    if samples < _BATCHES * _DISTILL_BATCH:
        return _small_settings(before, "distill", samples, 30, curvature)
    rate = {"kind": "cosine", "start": _DISTILL_LR, "warmup_epochs": _DISTILL_EPOCHS * _WARMUP}
    settings = {"epochs": _DISTILL_EPOCHS, "batch_size": _DISTILL_BATCH, "optimizer": _lars(rate, 1e-4)}
    return {**_kept_settings(before), **settings}


def _small_settings(before: Mapping[str, Any], command: str, samples: int, epochs: int, curvature: float) -> Data:
    batch = min(_SMALL_BATCH, 2 ** max(int(math.log2(max(samples, 1) / 4)), 1))  # at least four batches, of two or more
    steps = max(samples // batch, 1)
    return {
        **_kept_settings(before),
        "epochs": max(epochs, math.ceil(_SMALL_STEPS[command] / steps)),
        "batch_size": batch,
        "optimizer": {
            "kind": "sgd",
            "nesterov": True,
            "lr": {"kind": "cosine", "start": float(f"{_SMALL_LR / curvature:.6g}")},
            "weight_decay": 1e-4,
        },
    }


def _kept_settings(before: Mapping[str, Any]) -> Data:
    return {"batch_norm": "sync", **{name: before["train"][name] for name in _KEPT}}


def _lars(rate: Data, decay: float, head: str | None = None) -> Data:
    """SimCLR's LARS, × √B. ``head``: parameters that have no trust ratio; the code leaves the classifier out."""
    groups: list[Data] = [{"match": "norm_and_bias", "weight_decay": 0.0, "trust_ratio": False}]
    if head is not None:
        groups.append({"match": head, "trust_ratio": False})
    scaling = {"rule": "sqrt", "per": 1}
    lars = {"kind": "lars", "variant": "tf", "lr": rate, "scaling": scaling, "weight_decay": decay, "groups": groups}
    return lars


def _evaluation(before: Mapping[str, Any], samples: int) -> Data:
    """By the logits, and by the nearest neighbours among the samples that there are."""
    evaluation = before["eval"]
    knn = evaluation["knn"]
    if knn is not None:
        knn = {**knn, "k": min(knn["k"], samples)}
    return {"knn": knn, "classify": {}, "batch_size": evaluation["batch_size"]}
