"""What several tests of whole runs need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.noise import noise


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty small images in two classes: forty to train on, which is five steps an epoch, and ten to judge with."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(50):
        name = folder / ("one" if number % 2 else "other") / f"{number}.png"
        name.parent.mkdir(exist_ok=True)
        noise((32, 32), 80, number).convert("RGB").save(name)
    return folder
