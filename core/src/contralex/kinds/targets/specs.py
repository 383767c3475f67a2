"""Specs of the core's target generators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from contralex.plugins.spec import Least, Spec, leave_out_defaults
from contralex.recipes.schedules import Temperature


class InstanceSpec(Spec):
    """The sample itself: its entry in the dictionary."""

    kind: Literal["instance"] = "instance"
    builds = ".parts:InstanceTargets"
    needs = {"negatives": frozenset({"positive"})}
    gives = frozenset({"index"})
    source = "InstDisc, arXiv:1805.01978, section 3.1"


class KeyVectorSpec(Spec):
    """The sample's key, as a vector for regression."""

    kind: Literal["key_vector"] = "key_vector"
    builds = ".parts:KeyVectorTargets"
    gives = frozenset({"vectors"})
    source = "BYOL, arXiv:2006.07733, section 3.1"


class ClassLabelSpec(Spec):
    """The class of the sample. Every sample must have one, unless there is a ``share``."""

    kind: Literal["class_label"] = "class_label"
    builds = ".parts:ClassLabelTargets"
    share: float | None = Field(None, gt=0, le=1)
    """The fraction of the labels that is used, those that data of kind ``labelled`` with this share keep; any other
    sample has weights of 0, and still counts as a sample of the batch. null: every sample has a label."""
    seed: int = Field(0, ge=0, lt=2**63)
    """The seed that chooses which labels are used."""
    needs = {"data": frozenset({"labels"}), "negatives": frozenset({"classes"})}
    gives = frozenset({"index", "weights"})
    added = frozenset({"share", "seed"})
    source = "SimCLR v2, arXiv:2006.10029, section 2 (fine-tuning; Eq. 3)"

    def offers(self) -> frozenset[str]:
        return self.gives - {"weights" if self.share is None else "index"}

    _written = leave_out_defaults("share", "seed")


class TeacherLogitsSpec(Spec):
    """The output of the key encoder, a classifier, for the sample: softmax(logits/``temperature``) over the classes."""

    kind: Literal["teacher_logits"] = "teacher_logits"
    builds = ".parts:TeacherLogitsTargets"
    temperature: float = Field(1.0, gt=0, le=1000)
    """Divides the teacher's logits."""
    hard: bool = False
    """Whether all weight is on the teacher's most likely class (pseudo-labels)."""
    threshold: float | None = Field(None, gt=0, lt=1)
    """A sample whose most likely class has less than this probability, at temperature 1, has weights
    of 0, and still counts as a sample of the batch; null: every sample has weights."""
    needs = {"negatives": frozenset({"classes"}), "key_encoder": frozenset({"keys"})}
    gives = frozenset({"weights"})
    source = "SimCLR v2, arXiv:2006.10029, Eq. 2; Hinton et al., arXiv:1503.02531; Noisy Student, arXiv:1911.04252"


class KeySoftmaxSpec(Spec):
    """The key's own distribution over the entries: softmax(scores/``temperature``), balanced over the batch or not."""

    kind: Literal["key_softmax"] = "key_softmax"
    builds = ".parts:KeySoftmaxTargets"
    temperature: Temperature
    """Divides the key's scores; above 0, and below the loss's. May follow a schedule."""
    sinkhorn: int = Field(0, ge=0, le=100)
    """Iterations that balance the distributions of all keys over the entries (MSN has 3); 0: none (ReSSL)."""
    needs = {"negatives": frozenset({"prototypes", "shared entries alone"}), "key_encoder": frozenset({"keys"})}
    gives = frozenset({"weights"})
    source = "ReSSL, arXiv:2107.09282, Eqs. 2 and 4; MSN, arXiv:2204.07141, section 3; code: msn_train.py"
    example = {"temperature": 0.05, "sinkhorn": 3}

    def least(self, offers: Mapping[str, frozenset[str]]) -> list[Least]:
        return (
            [Least("batch", 2, "the keys are balanced over the entries together", "sinkhorn")] if self.sinkhorn else []
        )
