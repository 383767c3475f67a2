"""An evaluation as it is kept: the figures with all that they depend on, and a line for a paper. Imports no torch."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from contralex.data.fingerprints import digest
from contralex.evaluation.base import THIS, Accuracy, Measures
from contralex.files import read_json, write_text

FOLDER = "evaluations"
FORMAT = 1
_LIBRARIES = ("contralex", "torch", "torchvision", "numpy", "pillow", "scikit-learn", "timm")


R = TypeVar("R", bound=Accuracy | Measures)


class Evaluation(dict[str, R]):
    """Results by what was evaluated: ``this run``, and its baselines where there are any. It prints as a paragraph.

    ``record``: all of it as JSON holds it: ``figures``, ``protocol``, ``data`` with their fingerprints, ``checkpoint``
    with its digest, ``versions``. ``file``: where that is kept; None where the run's folder cannot be written to.

    >>> import contralex
    >>> found = contralex.open("runs/my-run").knn(sets={"eval.knn.k": 5})
    >>> found.figures["top1"] == found["this run"].top1, sorted(found.record)[:3]
    (True, ['checkpoint', 'data', 'device'])
    """

    def __init__(self, results: Mapping[str, R], record: dict[str, Any], file: Path | None) -> None:
        super().__init__(results)
        self.record = record
        self.file = file

    @property
    def figures(self) -> dict[str, Any]:
        """Those of the run itself, by their names."""
        figures: dict[str, Any] = self.record["figures"]
        return figures

    @property
    def protocol(self) -> dict[str, Any]:
        """Everything that the figures depend on."""
        protocol: dict[str, Any] = self.record["protocol"]
        return protocol

    @property
    def text(self) -> str:
        """A line for a paper."""
        text: str = self.record["text"]
        return text

    def __repr__(self) -> str:
        return self.text if self.file is None else f"{self.text}\n  ({self.file})"


@dataclass(frozen=True)
class Subject:
    """What was evaluated, and on what, as a record says it."""

    run: dict[str, Any]
    """``name`` and ``digest`` of its spec."""
    checkpoint: dict[str, Any]
    """``path``, ``step``, and ``sha256`` of its tensors."""
    data: dict[str, Any]
    """``spec``, ``described``, and the fingerprint of each split."""
    device: str
    """The type of the device."""
    plugins: Mapping[str, str]
    """The distributions that the run uses, with their versions."""


def make_record(
    name: str, results: Mapping[str, Accuracy | Measures], subject: Subject, sentence: str
) -> dict[str, Any]:
    """``sentence``: what was evaluated how, with its figures."""
    own = results[THIS]
    baselines = {who: to_json(result) for who, result in results.items() if who != THIS}
    record = {
        "format": FORMAT,
        "evaluation": name,
        "figures": list_figures(own),
        "protocol": own.protocol,
        **({"baselines": baselines} if baselines else {}),
        **({"details": own.details} if isinstance(own, Measures) and own.details else {}),
        "run": subject.run,
        "checkpoint": subject.checkpoint,
        "data": subject.data,
        "device": subject.device,
        "versions": list_versions(subject.plugins),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {**record, "text": _text(sentence, record)}


def write_record(run: Path, record: Mapping[str, Any]) -> Path:
    """Into the run's ``evaluations``, under a name by what was evaluated how: the same evaluation of the same
    checkpoint on the same data replaces itself. Raises OSError."""
    said = [record["checkpoint"]["sha256"], json.dumps(record["data"], sort_keys=True, default=str)]
    settings = {name: value for name, value in record["protocol"].items() if name != "converged"}
    key = digest([*said, json.dumps(settings, sort_keys=True, default=str)])
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    file = folder / f"{record['evaluation']}-{key[:12]}.json"
    write_text(file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return file


def read_records(run: Path) -> list[dict[str, Any]]:
    """Those of a run's folder, the newest first. What is no record is left out."""
    found: list[dict[str, Any]] = []
    for file in sorted((run / FOLDER).glob("*.json")):
        with suppress(OSError, ValueError):
            record = read_json(file)
            if isinstance(record, dict) and record.get("format") == FORMAT:
                found.append(record)
    return sorted(found, key=lambda record: str(record.get("made")), reverse=True)


def to_json(result: Accuracy | Measures) -> dict[str, Any]:
    """Figures and their protocol, as JSON holds them."""
    return {**list_figures(result), "protocol": result.protocol}


def list_figures(result: Accuracy | Measures) -> dict[str, Any]:
    if isinstance(result, Measures):
        return dict(result.figures)
    return {name: value for name, value in asdict(result).items() if name != "protocol"}


def list_versions(plugins: Mapping[str, str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {**found, **plugins}


def _text(sentence: str, record: Mapping[str, Any]) -> str:
    data, checkpoint = record["data"], record["checkpoint"]
    fingerprint = data["test"] or data["train"]
    known = f", fingerprint {fingerprint[:12]}" if fingerprint else ""
    installed = record["versions"]
    made_by = ", ".join(f"{name} {installed[name]}" for name in ("contralex", "torch") if name in installed)
    return (
        f"{sentence}; {record['run']['name']}, step {checkpoint['step']:,} (SHA-256 {checkpoint['sha256'][:12]}), on "
        f"{data['spec']['kind']}{known}; {made_by}."
    )
