"""Tests for a machine with a GPU. Without one they are skipped, unless ``CONTRALEX_GPU_TESTS=cpu`` rehearses them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available() and os.environ.get("CONTRALEX_GPU_TESTS") != "cpu":
                item.add_marker(pytest.mark.skip(reason="needs a GPU of CUDA"))


def pytest_runtest_logstart(nodeid: str) -> None:
    _note({"test": nodeid})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        message = getattr(getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr or ""))
        _note({"test": report.nodeid, "outcome": report.outcome, "when": report.when, "message": message[:300]})


def _note(line: dict[str, Any]) -> None:
    """A line of the file that CONTRALEX_GPU_RESULTS names, at once: a run that is killed has told what it saw."""
    file = os.environ.get("CONTRALEX_GPU_RESULTS")
    if file and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(file, "a", encoding="utf-8") as results:
            results.write(json.dumps(line) + "\n")


@pytest.fixture(autouse=True)
def _exact_float32() -> Iterator[None]:
    """Within, matrix products and convolutions are in float32, not in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
