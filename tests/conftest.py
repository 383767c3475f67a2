"""What several tests need: a small complete recipe, and plugins that exist only while a test runs."""

from __future__ import annotations

import gc
import sys
import textwrap
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest

from contralex.plugins.registry import registry

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


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collection makes stays until the end, so nobody looks through it for garbage, then or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., str]:
    """Writes a recipe and returns its path: the small one above, or another text."""

    def write(text: str = RECIPE, name: str = "small.yaml") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), "utf-8")
        return str(path)

    return write


class Site:
    """Distributions of one module each, on the path until it is closed."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root, self._monkeypatch = root, monkeypatch
        self._modules: list[str] = []

    def install(
        self,
        name: str,
        code: str,
        *,
        version: str = "1.0",
        requires: str = "contralex",
        entry: str = "",
        recipes: Mapping[str, str] | None = None,
    ) -> Path:
        """Returns the folder. ``recipes`` are written to ``<module>_recipes`` beside the module."""
        folder, module = self._root / str(len(self._modules)), name.replace("-", "_")
        folder.mkdir()
        (folder / f"{module}.py").write_text(textwrap.dedent(code), "utf-8")
        for recipe, text in (recipes or {}).items():
            (folder / f"{module}_recipes").mkdir(exist_ok=True)
            (folder / f"{module}_recipes" / f"{recipe}.yaml").write_text(textwrap.dedent(text), "utf-8")
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {requires}\n"
        (info / "METADATA").write_text(metadata, "utf-8")
        (info / "entry_points.txt").write_text(f"[contralex]\n{name} = {module}\n{entry}", "utf-8")
        self._monkeypatch.syspath_prepend(folder)
        self._modules.append(module)
        registry.cache_clear()
        return folder

    def close(self) -> None:
        registry.cache_clear()
        for module in self._modules:
            sys.modules.pop(module, None)


@pytest.fixture
def fake_plugin(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """Installs a distribution of one module, and forgets what was known of plugins. Returns its folder."""
    site = Site(tmp_path_factory.mktemp("site"), monkeypatch)
    yield site.install
    site.close()


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Where distributions stay installed for all tests of a module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        site = Site(tmp_path_factory.mktemp("site"), monkeypatch)
        yield site
        site.close()


@pytest.fixture(autouse=True)
def _plugins_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell allows or blocks is not what is tested."""
    monkeypatch.delenv("CONTRALEX_PLUGINS", raising=False)
