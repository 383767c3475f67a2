"""What several tests of commands need."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from contralex.__main__ import main

Result = tuple[int, str, str]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs ``contralex ...`` in this process: exit code, stdout, stderr."""

    def run(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["contralex", *words])
        try:
            code = main()
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
