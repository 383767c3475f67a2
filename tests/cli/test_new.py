"""``contralex new``: each start is a package that installs, passes the checks and trains; names are checked."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from contralex.__main__ import main
from contralex.cli import new
from contralex.cli.composing.parts import Start, complete_starts, describe, read_starts, slots_of
from contralex.cli.new import write
from contralex.errors import ContralexError
from contralex.plugins.registry import registry
from contralex.recipes.layers import resolve
from tests.packages import ROOT, check_shape, environment, run, wheels_of

STARTS = list(Start)
TEMPLATES = ROOT / "core/src/contralex/cli/templates"
SHOWN = ["encoder,negatives,loss", "data,views,key_encoder,targets,loss,hook"]  # also as strangers install them
# Every pair, some triples, and all at once, but one network: an encoder of one's own takes no backbone.
TOGETHER = [
    ",".join(names)
    for names in [
        *itertools.combinations([start.value for start in Start if start is not Start.METHOD], 2),
        *(parts.split(",") for parts in SHOWN),
        ("encoder", "key_encoder", "negatives"),
        ("key_encoder", "targets", "negatives"),
        ("key_encoder", "targets", "loss"),
        ("views", "targets", "loss"),
        ("encoder", "negatives", "method"),
        ("data", "views", "hook"),
        tuple(start.value for start in Start if start is not Start.BACKBONE),
        tuple(start.value for start in Start if start is not Start.ENCODER),
    ]
    if not {"encoder", "backbone"} <= set(names)
]
each_start = pytest.mark.parametrize("start", STARTS)
Install = Callable[..., None]


def named(start: Start, prefix: str = "made") -> str:
    return f"{prefix}-{start.value.replace('_', '-')}"


def package_name(start: Start) -> str:
    return f"contralex-{named(start)}"


def package(start: Start, prefix: str = "made") -> str:
    return f"contralex_{named(start, prefix).replace('-', '_')}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[Start, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {start: write(named(start), (start,), folder / named(start)) for start in STARTS}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Packages of several parts, by the names of the parts."""
    folder = tmp_path_factory.mktemp("together")
    return {
        parts: write(f"set-{number}", read_starts(parts, "set"), folder / f"set-{number}")
        for number, parts in enumerate(TOGETHER)
    }


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs written packages as ``pip install -e`` does, for one test."""

    def installed(*folders: Path) -> None:
        for folder in folders:
            name = re.search(r'(?m)^name = "(.*)"', (folder / "pyproject.toml").read_text("utf-8"))[1]  # type: ignore[index]
            module = name.replace("-", "_")
            info = folder / "src" / f"{module}-0.1.0.dist-info"
            info.mkdir(exist_ok=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n", "utf-8")
            point = f"[contralex]\n{name.removeprefix('contralex-')} = {module}.plugin\n"
            (info / "entry_points.txt").write_text(point, "utf-8")
            monkeypatch.syspath_prepend(folder / "src")
        registry.cache_clear()

    before = set(sys.modules)
    yield installed
    registry.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("contralex_"):
            del sys.modules[name]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["contralex", *words])
        try:
            code = main()
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return call


# What is written


@each_start
def test_a_package_has_the_shape_of_ours(start: Start, made: dict[Start, Path]) -> None:
    folder = made[start]
    check_shape(folder)
    assert (folder / ".github/workflows/test.yml").is_file()
    assert (folder / ".gitignore").is_file()
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "LICENSE":
            left = re.findall("NAME|IDENTIFIER|WHAT|LOWEST|NEXT", path.read_text("utf-8"))
            assert not left, f"{path}: {left}"


def test_packages_are_linted_and_formatted(made: dict[Start, Path]) -> None:
    longest = "a" + "-longest" * 4 + "-of-all"
    assert len(longest) == new._LONGEST
    for start in STARTS:  # a long name breaks no line either
        write(longest, (start,), made[start].parent / f"long-{start}")
    for arguments in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *arguments, "."]
        done = subprocess.run(ruff, cwd=made[Start.LOSS].parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@each_start
def test_the_entry_module_imports_no_torch(start: Start, made: dict[Start, Path]) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(made[start] / 'src')!r}); import {package(start)}.plugin as plugin\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_packages_live_beside_each_other(made: dict[Start, Path], install: Install, tmp_path: Path) -> None:
    other = write("other-method", (Start.METHOD,), tmp_path / "other")
    install(*made.values(), other)
    plugins = registry().plugins
    for name in ["other-method", *map(named, STARTS)]:
        assert plugins[f"contralex-{name}"].state == "ready", plugins[f"contralex-{name}"].reason


@each_start
def test_the_recipe_uses_the_part_with_and_without_the_preset(
    start: Start, made: dict[Start, Path], install: Install
) -> None:
    install(made[start])
    for preset in (None, "digits"):
        run = resolve(named(start), preset=preset).run
        assert (start is Start.HOOK) == (package_name(start) in [use.name for use in run.plugins])
        places = {"data": run, "backbone": run.method.encoder}
        for slot in slots_of([start]):
            if (slot, preset) != ("data", "digits"):  # which shows all else on data that everybody has
                assert getattr(places.get(slot, run.method), slot).kind == named(start).replace("-", "_")


@each_start
def test_the_recipe_trains(start: Start, made: dict[Start, Path], install: Install, tmp_path: Path) -> None:
    from contralex.training.run import train

    install(made[start])
    small = "method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}"
    if start is Start.ENCODER:
        small = "method.encoder.width=8"
    elif start is Start.BACKBONE:
        small = "method.encoder.backbone.widths=[8, 12]"
    sets = [small, "train.epochs=1", "train.batch_size=256", "train.workers=0", "eval.knn=null"]
    results = train(resolve(named(start), preset="digits", sets=sets), tmp_path / "run")
    assert results["steps"] == 5


# Several parts at once


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@each_start
def test_a_package_of_one_part_is_the_templates_as_they_are(start: Start, tmp_path: Path) -> None:
    found = contents(write("mine", (start,), tmp_path / "mine"))
    templates = [path for path in (TEMPLATES / start).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(templates) >= 6
    for path in templates:
        name = fill(str(path.relative_to(TEMPLATES / start)))
        assert found[name].decode() == fill(path.read_text("utf-8"))


def fill(text: str) -> str:
    return text.replace("IDENTIFIER", "mine").replace("NAME", "mine")


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("loss,encoder,negatives,loss", "encoder,negatives,loss"),
        (" loss , encoder,", "encoder,loss"),
        ("targets,loss", "method"),
        ("method,loss,encoder", "encoder,targets,loss"),
        ("loss,loss", "loss"),
    ],
)
def test_the_order_of_parts_and_their_repetition_do_not_matter(
    said: str, same: str, call: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for parts, out in ((said, "one"), (same, "other")):
        assert call("new", "mine", "--as", parts, "--out", out)[0] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_packages_of_several_parts_are_linted_and_formatted(together: dict[str, Path]) -> None:
    for parts, folder in together.items():
        write("a" + "-longest" * 4 + "-of-all", read_starts(parts, "set"), folder.with_name(f"long-{folder.name}"))
    for arguments in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
        done = subprocess.run(ruff, cwd=folder.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("parts", TOGETHER)
def test_a_package_of_several_parts_has_each_as_it_is_alone(
    parts: str, together: dict[str, Path], tmp_path: Path
) -> None:
    """Its modules, its classes and hooks, its row of the card."""
    folder, starts = together[parts], read_starts(parts, "set")
    name, kind = folder.name, folder.name.replace("-", "_")
    check_shape(folder)
    found = {path: text.decode() for path, text in contents(folder).items() if Path(path).name != "LICENSE"}
    assert not [path for path, text in found.items() if re.search("NAME|IDENTIFIER|WHAT|LOWEST|NEXT", text)]
    for start in starts:
        alone = contents(write(name, (start,), tmp_path / start))
        assert set(alone) <= {*found, "LICENSE"}
        for path in (path for path in alone if path.endswith(".py")):
            text = alone[path].decode()
            if path.endswith(("plugin.py", "spec.py")):
                assert definitions(text) and definitions(text) <= definitions(found[path])
            elif not path.endswith("__init__.py"):
                assert found[path] == text
        rows = [line for line in alone["README.md"].decode().splitlines() if re.match(rf"\| .*`{kind}`", line)]
        assert len(rows) == (0 if start in (Start.VIEWS, Start.DATA) else len(slots_of([start])))
        assert set(rows) <= set(found["README.md"].splitlines())
    for path in (path for path in found if path.endswith(".py")):
        compile(found[path], path, "exec")
    card = " ".join(found["README.md"].split())
    assert "SimCLR's" not in card.partition("## Where we differ")[2]
    assert ("augmented" in card) == (Start.VIEWS not in starts and bool({Start.TARGETS, Start.METHOD} & set(starts)))
    assert describe(starts) in found["pyproject.toml"]


def definitions(source: str) -> set[str]:
    return {ast.dump(node) for node in ast.parse(source).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_one_recipe_uses_all_parts_of_a_package(together: dict[str, Path], install: Install) -> None:
    """With its preset, which the model of each is built from and makes two steps of."""
    import torch

    from contralex.training import build

    install(*together.values())
    for parts, folder in together.items():
        starts, name = read_starts(parts, "set"), folder.name
        for preset in (None, "digits"):
            run = resolve(name, preset=preset).run
            places = {"data": run, "backbone": run.method.encoder}
            own = [slot for slot in slots_of(starts) if (slot, preset) != ("data", "digits")]
            kinds = {slot: getattr(places.get(slot, run.method), slot).kind for slot in own}
            assert kinds == dict.fromkeys(own, name.replace("-", "_")), parts
            assert [use.name for use in run.plugins] == [f"contralex-{name}"] * (Start.HOOK in starts), parts
        model = build.look_up(run, 40).train()
        for number in range(2):
            views: Any = {view: torch.rand(4, 3, 32, 32) for view in range(2)}
            step = moment(number)
            result = model(views, torch.arange(4 * number, 4 * number + 4), step)
            model.zero_grad()
            result.loss.backward()
            moved = [float(weight.grad.abs().sum()) for weight in model.encoder.parameters() if weight.grad is not None]
            assert result.loss.isfinite() and sum(moved) > 0, parts
            model.update(result.keys, step)


@pytest.mark.parametrize(
    ("parts", "sentence", "mended"),
    [
        ("los", "there is no part los; did you mean loss?", ["loss"]),
        ("encodr,loss", "there is no part encodr; did you mean encoder?", ["encoder,loss"]),
        ("anything,loss", "there is no part anything; the parts are loss, negatives, targets,", ["loss"]),
        ("anything", "there is no part anything; the parts are", ["method"]),
        (",", "--as names no part; the parts are", ["method"]),
        ("loss,encoder,backbone", "no recipe would use a backbone beside it", ["encoder,loss", "backbone,loss"]),
    ],
)
def test_parts_that_are_refused(
    parts: str,
    sentence: str,
    mended: list[str],
    call: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call("new", "mine", "--as", parts)
    assert (code, out) == (2, "")
    said, *commands = err.splitlines()
    assert sentence in said
    assert commands == [f"  contralex new mine --as {each}" for each in mended]
    assert list(tmp_path.iterdir()) == []
    for command in commands:
        assert call(*command.split()[1:], "--out", f"{len(command)}")[0] == 0


def test_shells_complete_the_next_part() -> None:
    assert complete_starts("encoder,ne") == ["encoder,negatives"]
    assert set(complete_starts("loss,")) == {f"loss,{start}" for start in Start if start is not Start.LOSS}
    assert complete_starts("k") == ["key_encoder"]


# What is refused


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["Mine"], "a name is of small letters, digits and single hyphens, and 'Mine' is not; mine would do"),
        (["my_method"], "'my_method' is not; my-method would do"),
        (["my--method"], "my-method would do"),
        (["1st"], "'1st' is not; st would do"),
        (["mine-"], "mine would do"),
        (["émile"], "'émile' is not"),
        (["../mine"], "mine would do"),
        (["contralex-mine"], "leave contralex- out of the name, which is added: contralex new mine"),
        (["class"], "class is a keyword of Python; choose another name, such as my-class"),
        (["a" * 41], "has at most 40 letters"),
        (["moco"], "contralex-moco is a package of contralex's own; choose another name"),
        (["moco-v2"], "there is a recipe moco-v2 in contralex-moco already; choose another name"),
        (["nce", "--as", "loss"], "there is a loss of kind nce in contralex already; choose another name"),
        (["sinkhorn", "--as", "targets"], "there is a targets of kind sinkhorn in contralex-swav already"),
        (["made-loss"], "contralex-made-loss 0.1.0 is installed already; choose another name, or uninstall it"),
        (["mine", "--out", "there"], "there exists already; choose another folder with --out"),
        (["mine", "--out", "nowhere/mine"], "there is no folder nowhere; make it first"),
    ],
)
def test_refusals(
    words: list[str],
    sentence: str,
    call: Callable[..., tuple[int, str, str]],
    made: dict[Start, Path],
    install: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(made[Start.LOSS])
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    code, out, err = call("new", *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = new._files

    def broken(name: str, starts: Sequence[Start]) -> Iterator[tuple[Path, bytes]]:
        yield next(files(name, starts))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(new, "_files", broken)
    with pytest.raises(ContralexError, match="cannot be written: No space left on device"):
        write("mine", (Start.METHOD,), tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_the_next_commands(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call("new", "mine")
    assert (code, err) == (0, "")
    assert out.splitlines()[-3:] == [
        '  pip install -e "./contralex-mine[test]"',
        "  contralex check contralex-mine",
        "  contralex train mine --preset digits",
    ]
    check_shape(tmp_path / "contralex-mine")


# The parts compute what they say


@pytest.fixture
def part(made: dict[Start, Path], install: Install) -> Callable[..., Any]:
    """A part of a written package, built from its spec."""

    def build(start: Start, slot: str, context: Any = None, **values: Any) -> Any:
        install(made[start])
        kind = named(start).replace("-", "_")
        spec = registry().find(slot, kind)
        assert spec is not None
        made_spec: Any = spec.model_validate({"kind": kind, **values})
        return made_spec.build() if slot == "encoder" else made_spec.build(context)

    return build


def test_the_loss_leaves_the_positive_out_of_the_sum(part: Callable[..., Any]) -> None:
    import torch

    from contralex.plugin import Dictionary, Targets

    loss, queries, places = part(Start.LOSS, "loss", temperature=0.5), unit(5), torch.tensor([4, 0, 3, 2, 1])
    entries = unit(5, seed=1).vectors
    naive = 0.0
    for row, place in enumerate(places.tolist()):
        scores = [float(queries.vectors[row] @ entry) / 0.5 for entry in entries]
        others = [score for at, score in enumerate(scores) if at != place]
        naive += (torch.tensor(others).exp().sum().log().item() - scores[place]) / 5
    found = loss(queries, Dictionary(shared=entries), Targets(index=places), moment())
    assert float(found) == pytest.approx(naive, rel=1e-5)


def test_the_memory_holds_the_last_keys_of_others(part: Callable[..., Any]) -> None:
    import torch

    from contralex.plugin import Match

    source = part(Start.NEGATIVES, "negatives", context(), size=7)
    written: list[tuple[int, Any]] = []
    for number, first in enumerate((0, 4, 2, 9)):
        queries, keys = unit(4, first, view=0, seed=number), unit(4, first, view=1, seed=10 + number)
        found = source(queries, keys, Match(0, 1), moment())
        for row in range(4):
            sample = first + row
            others = [vector for at, vector in enumerate(keys.vectors) if at != row]
            others += [vector for remembered, vector in written[-7:] if remembered != sample]
            naive = sorted(float(queries.vectors[row] @ vector) for vector in others)
            scores = found.scores(queries.vectors)[row]
            assert float(scores[0]) == pytest.approx(float(queries.vectors[row] @ keys.vectors[row]), abs=1e-6)
            there = sorted(scores[1:][scores[1:].isfinite()].tolist())
            torch.testing.assert_close(torch.tensor(there), torch.tensor(naive))
        source.update(keys, moment())
        written += list(zip(keys.sample.tolist(), keys.vectors, strict=True))


@pytest.mark.parametrize("start", [Start.TARGETS, Start.METHOD])
def test_targets_follow_what_the_key_resembles(start: Start, part: Callable[..., Any]) -> None:
    import torch

    from contralex.plugin import Dictionary, Match

    fraction = 0.3 if start is Start.TARGETS else 1.0
    values = {"fraction": fraction} if start is Start.TARGETS else {}
    targets = part(start, "targets", temperature=0.1, **values)
    queries, keys = unit(4, view=0), unit(4, view=1, seed=1)
    found = targets(queries, keys, Dictionary(shared=keys.vectors, rows=keys), Match(0, 1), moment())
    for row in range(4):
        others = [at for at in range(4) if at != row]
        resembling = torch.softmax((keys.vectors[others] @ keys.vectors[row]) / 0.1, dim=0)
        naive = torch.zeros(4)
        naive[others] = fraction * resembling
        naive[row] = 1 - fraction
        torch.testing.assert_close(found.weights[row], naive, atol=1e-6, rtol=1e-5)


def test_the_relational_loss_is_a_cross_entropy_over_others(part: Callable[..., Any]) -> None:
    import torch

    from contralex.plugin import Dictionary, Targets

    loss, queries, entries = part(Start.METHOD, "loss", temperature=0.5), unit(3), unit(4, seed=1).vectors
    index, weights = torch.tensor([1, 0, 3]), torch.rand(3, 4)
    weights[torch.arange(3), index] = 0.0
    naive = 0.0
    for row in range(3):
        others = [at for at in range(4) if at != int(index[row])]
        log_p = torch.log_softmax(entries[others] @ queries.vectors[row] / 0.5, dim=0)
        naive -= float(weights[row, others] @ log_p) / 3
    found = loss(queries, Dictionary(shared=entries), Targets(index=index, weights=weights), moment())
    assert float(found) == pytest.approx(naive, rel=1e-5)


def test_the_key_encoder_averages_weights_and_statistics(part: Callable[..., Any]) -> None:
    import torch
    from torch import nn

    online: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    keys = part(Start.KEY_ENCODER, "key_encoder", context(online), momentum=0.6)
    assert not any(parameter.requires_grad for parameter in keys.parameters())
    mean = [torch.zeros(4, 3), torch.zeros(4)]  # of weights and of BatchNorm's running mean
    for number in range(4):
        with torch.no_grad():
            online[0].weight.add_(torch.randn(4, 3))
            online[1].running_mean.add_(torch.randn(4))
            online[1].num_batches_tracked.add_(1)
        m = min(0.6, 1 - 1 / (number + 1))  # 0, then 1/2, then as the spec says
        mean = [
            m * old + (1 - m) * new for old, new in zip(mean, (online[0].weight, online[1].running_mean), strict=True)
        ]
        keys.update(moment(number))
    torch.testing.assert_close(keys.encoder[0].weight, mean[0])
    torch.testing.assert_close(keys.encoder[1].running_mean, mean[1])
    assert int(keys.encoder[1].num_batches_tracked) == 4
    assert not keys.train().encoder[1].training


def test_the_encoder_gives_unit_vectors_and_features(part: Callable[..., Any]) -> None:
    import torch

    encoder = part(Start.ENCODER, "encoder", patch=2, width=8, depth=2, kernel=3, dim=6)
    images = {0: torch.rand(3, 3, 16, 16), 1: torch.rand(3, 3, 12, 12)}
    queries = encoder.queries(encoder(images))
    for vectors, positions in queries.values():
        assert vectors.shape == (3, encoder.dim) and positions is None
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert encoder.features(images[1]).shape == (3, 8)


def test_the_views_have_a_hole_that_stays_in_the_crop(made: dict[Start, Path], install: Install) -> None:
    import torch
    from PIL import Image

    install(made[Start.VIEWS])
    spec = registry().get("views", "made_views")
    views = spec.model_validate({"size": 12, "hole": 5}).build()
    sizes = set()
    for seed in range(40):
        torch.manual_seed(seed)
        hole = (views.make(Image.new("RGB", (20, 20), (255, 255, 255)), 0) == 0).all(dim=0)
        rows, columns = hole.any(dim=1), hole.any(dim=0)
        assert hole.sum() == rows.sum() * columns.sum()  # one rectangle
        sizes.add(int(hole.sum()))
    assert max(sizes) == 25 and 0 < min(sizes) < 25  # cut off where it crosses an edge


def test_the_backbone_gives_the_map_that_it_averages(made: dict[Start, Path], install: Install) -> None:
    import torch

    install(made[Start.BACKBONE])
    backbone, dim = registry().get("backbone", "made_backbone").model_validate({"widths": [4, 6]}).build()
    images = torch.rand(2, 3, 13, 10)
    pooled, places = backbone.encode_places(images)
    assert backbone.grid(images) == (4, 3) and places.shape == (2, 12, dim)
    torch.testing.assert_close(pooled, backbone.layers(images).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("image,class\n", "has no column split; it must have image, class, split"),
        ("image,class,split\na.png,a,test\n", "has no row whose split is train"),
        (None, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    table: str | None, sentence: str, made: dict[Start, Path], install: Install, tmp_path: Path
) -> None:
    install(made[Start.DATA])
    if table is not None:
        (tmp_path / "samples.csv").write_text(table, "utf-8")
    with pytest.raises(ContralexError, match=sentence):
        registry().get("data", "made_data").model_validate({"path": str(tmp_path / "samples.csv")}).build()


def unit(count: int, first: int = 0, view: int = 0, seed: int = 0) -> Any:
    """Rows of unit vectors of three numbers, of the samples ``first``, ``first + 1``, ..."""
    import torch

    from contralex.plugin import Rows

    vectors = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return Rows.from_view(torch.nn.functional.normalize(vectors, dim=1), torch.arange(first, first + count), view)


def moment(step: int = 0) -> Any:
    from contralex.lookup.clock import Clock
    from contralex.plugin import Step

    return Step(Clock(step, 100, 5), seed=0, batch=4)


def context(encoder: Any = None) -> Any:
    from contralex.plugin import BuildContext

    return BuildContext(
        dim=3, dataset_size=20, batch_size=4, key_views=(1,), encoder=encoder, fresh_encoder=lambda: encoder
    )


# As strangers install them


@pytest.mark.slow
def test_packages_are_typed(made: dict[Start, Path], together: dict[str, Path], tmp_path: Path) -> None:
    for folder in [*made.values(), *(together[parts] for parts in SHOWN)]:
        run(sys.executable, "-m", "mypy", "--cache-dir", tmp_path, cwd=folder)  # torch is read once for all


@pytest.fixture(scope="module")
def wheels(
    made: dict[Start, Path], together: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    shown = (together[parts] for parts in SHOWN)
    return wheels_of(tmp_path_factory.mktemp("wheels"), ROOT / "core", *made.values(), *shown)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [*STARTS, *SHOWN])
def test_a_wheel_beside_a_wheel_of_the_core_is_checked_and_trains(
    parts: str, wheels: dict[str, Path], together: dict[str, Path], tmp_path: Path
) -> None:
    name = named(Start(parts)) if parts in STARTS else together[parts].name
    python = environment(tmp_path / "env", wheels["contralex"], wheels[f"contralex_{name.replace('-', '_')}"])
    contralex = python.with_name("contralex")
    assert "passed" in run(contralex, "check", f"contralex-{name}", cwd=tmp_path)
    sets = ("--set=train.epochs=1", "--set=train.batch_size=256", "--set=eval.knn=null", "--set=train.workers=0")
    run(contralex, "train", name, "--preset", "digits", *sets, "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run/results.json").is_file()
    run(contralex, "new", "second", "--as", parts, cwd=tmp_path)  # the templates are in the core's wheel
    check_shape(tmp_path / "contralex-second")
