"""Memory that a run on the CPU has freed is kept for its next step."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of glibc")

FAULTS = """
import resource, sys
import torch
from contralex import memory
kept = memory.keep_freed() if sys.argv[1] == "kept" else None
def step():
    parts = [torch.ones(1 << 20) for _ in range(20)]  # 4 MiB each
    del parts
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str, **environment: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, mode],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, number = done.stdout.split()
    return kept, int(number)


def test_a_step_takes_the_pages_of_the_step_before_it() -> None:
    kept, number = faults("kept")
    if kept == "False":
        pytest.skip("no glibc, or the environment says otherwise")
    assert number < 5_000  # of 102,400 pages


def test_what_the_environment_says_is_obeyed() -> None:
    assert faults("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
