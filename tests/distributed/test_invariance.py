"""The same run on any number of processes: data, augmentation, losses, gradients, dictionaries, for every method and
every key encoder with every negative source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from contralex.plugins.registry import registry
from tests.distributed import invariance
from tests.distributed.invariance import CASES, METHODS
from tests.margins import same_counts

# Float32 rounding, which four steps of training amplify in the loss and the state, but not in the first gradient. A
# mistake of the kind that this is to find (a gradient scaled by the number of processes, a key that others do not
# see) is of the order of 1.
LIMITS = {"loss": 1e-3, "gradient": 3e-5, "state": 2e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return invariance.alone(list(CASES), folder)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    return invariance.together(2, list(CASES), folder)


@pytest.fixture(scope="module")
def four(folder: Path) -> list[dict[str, Any]]:
    return invariance.together(4, list(CASES), folder)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(name: str, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    _are_one(name, one, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_four_processes_are_one(name: str, one: dict[str, Any], four: list[dict[str, Any]]) -> None:
    _are_one(name, one, four)


def _are_one(name: str, one: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    expected = one[name]
    for found in (rank[name] for rank in ranks):
        for what in ("samples", "views"):  # the same images, augmented alike, to the bit
            assert all(torch.equal(a, b) for a, b in zip(expected[what], found[what], strict=True)), what
        same_counts(found["accuracy"], expected["accuracy"], expected["undecided"])
        apart = invariance.difference(expected, found)
        assert all(apart[what] < limit for what, limit in LIMITS.items()), apart
    for key, value in ranks[0][name]["state"].items():
        for other in ranks[1:]:
            assert torch.equal(value, other[name]["state"][key]), f"the processes end with another {key} each"


def test_every_recipe_is_a_case() -> None:
    first_party = {name for name, (plugin, _) in registry().recipes().items() if plugin.name.startswith("contralex-")}
    assert first_party <= {recipe for recipe, _ in METHODS.values()}
