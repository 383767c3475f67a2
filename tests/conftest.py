"""What several tests need: a small complete recipe, and plugins that exist only while a test runs."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contralex.registry import registry

RECIPE = """\
schema: 1
name: small
summary: A recipe for tests.
method:
  views:
    kind: crops
    groups:
      crops:
        count: 2
        augment:
          order: [crop, gray, flip]
          crop: {size: 32, scale: [0.2, 1]}
          gray: {p: 0.2}
          flip: {}
  encoder: {kind: image, backbone: {kind: conv}, projector: [{width: 64, activation: relu}, {width: 32}]}
  key_encoder: {kind: shared, gradient: true}
  negatives: {kind: in_batch, views: all}
  targets: {kind: instance}
  loss: {kind: info_nce, temperature: 0.1}
  matches: every
data: {kind: digits}
train:
  epochs: 2
  batch_size: 32
  optimizer: {kind: sgd, lr: {kind: steps, start: 3e-2, at: [1]}, weight_decay: 1e-4}
presets:
  quick:
    train: {epochs: 1}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., str]:
    """Writes a recipe and returns its path: the small one above, or another text."""

    def write(text: str = RECIPE, name: str = "small.yaml") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), "utf-8")
        return str(path)

    return write


@pytest.fixture
def fake_plugin(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """Installs a distribution of one module, and forgets what was known of plugins. Returns its folder."""
    modules: list[str] = []

    def install(name: str, code: str, *, version: str = "1.0", requires: str = "contralex", entry: str = "") -> Path:
        folder, module = tmp_path_factory.mktemp("site"), name.replace("-", "_")
        (folder / f"{module}.py").write_text(textwrap.dedent(code), "utf-8")
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {requires}\n"
        (info / "METADATA").write_text(metadata, "utf-8")
        (info / "entry_points.txt").write_text(f"[contralex]\n{name} = {module}\n{entry}", "utf-8")
        monkeypatch.syspath_prepend(folder)
        modules.append(module)
        registry.cache_clear()
        return folder

    yield install
    registry.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture(autouse=True)
def _plugins_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell allows or blocks is not what is tested."""
    monkeypatch.delenv("CONTRALEX_PLUGINS", raising=False)
