"""Files that nobody would call a recipe: one sentence each, in little time and memory, and never another exception."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contralex.errors import ContralexError
from contralex.plugins.registry import registry
from contralex.recipes import yaml
from contralex.recipes.layers import resolve, resolve_data
from tests.conftest import RECIPE

FUZZ = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FEW, MANY = settings(FUZZ, max_examples=60), settings(FUZZ, max_examples=100)


def refused_or_whole(folder: Path, content: bytes) -> None:
    """Resolved, or refused in one sentence; and what was resolved can be written, and read again."""
    path = folder / "mine.yaml"
    path.write_bytes(content)
    said = refusal(str(path))
    if said is None:
        found = resolve(str(path))
        path.write_text(found.to_yaml(), "utf-8")
        assert resolve(str(path)).digest == found.digest
    else:
        assert 0 < len(said) < 20_000
        said.encode()


def refusal(recipe: str, *sets: str) -> str | None:
    try:
        resolve(recipe, sets=sets)
    except ContralexError as error:
        return str(error)
    return None


def sentence(folder: Path, content: bytes | str) -> str:
    path = folder / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ContralexError) as error:
        resolve(str(path))
    return str(error.value)


# Anything


@FEW
@given(st.binary(max_size=300))
def test_random_bytes(tmp_path: Path, content: bytes) -> None:
    refused_or_whole(tmp_path, content)


WORDS = st.sampled_from(
    [
        *(
            "schema: 1\n",
            "extends: ",
            "moco-v2",
            "simclr-v1",
            "name: ",
            "method:\n",
            "  loss: ",
            "  negatives: ",
            "kind: ",
        ),
        *("train:\n", "  optimizer: ", "data: ", "presets:\n", "code: ", "plugins: ", "eval:\n", "  knn: ", "null\n"),
        *("- ", "? ", ": ", "{", "}", "[", "]", ", ", "&a ", "*a", "!!int ", "!t ", "|\n", ">\n", "'", '"', "#", "\n"),
        *(
            "~",
            "~root",
            "1e999",
            ".nan",
            "-.inf",
            "0x",
            "0o7",
            "9" * 50,
            "on",
            "<<: ",
            "\\ud800",
            "\0",
            "\t",
            "../",
            "/",
        ),
    ]
)


@MANY
@given(st.lists(WORDS, max_size=30).map("".join))
def test_text_that_looks_like_yaml(tmp_path: Path, text: str) -> None:
    refused_or_whole(tmp_path, text.encode())


@MANY
@given(st.lists(WORDS, max_size=8).map("".join))
def test_the_end_of_a_recipe(tmp_path: Path, text: str) -> None:
    refused_or_whole(tmp_path, ("schema: 1\nextends: simclr-v1\n" + text).encode())


# Recipes with something wrong

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**39), 10**39),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["queue", "cosine", "linear", "moco-v2", "~nobody/x", "a/b", "\0", "x" * 5000, "0->1", "9->9"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inside: st.one_of(
        st.lists(inside, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["kind", "start", "at", "count", "match"]), st.text(max_size=4)), inside
        ),
    ),
    max_leaves=6,
)
TEXTS = [RECIPE, *(file.read_text("utf-8") for _, file in registry().recipes().values())]


def places(data: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@MANY
@given(st.data())
def test_recipes_with_other_values(tmp_path: Path, data: st.DataObject) -> None:
    recipe = yaml.read(data.draw(st.sampled_from(TEXTS)), "it").data
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(places(recipe)[1:]))
        node = recipe
        for key in above:
            node = node[key]
        node[last] = data.draw(VALUES)
    refused_or_whole(tmp_path, json.dumps(recipe).replace("NaN", ".nan").replace("Infinity", ".inf").encode())
    try:  # the same as a checkpoint would hold it
        resolve_data(recipe).to_yaml().encode()
    except ContralexError as error:
        str(error).encode()


@MANY
@given(st.data())
def test_recipes_with_other_bytes(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(TEXTS)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    refused_or_whole(tmp_path, bytes(content))


@MANY
@given(st.lists(WORDS, min_size=1, max_size=6).map("".join))
@example("train.epochs=\ud800")
def test_set(text: str) -> None:
    assert refusal("simclr-v1", text) != ""
    assert refusal("simclr-v1", f"train.optimizer.lr={text}") != ""


# One by one


def test_depth_costs_nothing(tmp_path: Path) -> None:
    nested = "a:\n" + "\n".join(" " * depth + "a:" for depth in range(1, 400))
    for text in ("[" * 200_000, "- " * 100_000, "{a: " * 100_000, "? " * 100_000, nested):
        tracemalloc.start()
        said = sentence(tmp_path, text)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "nested more than 64 deep" in said or "nesting depth" in said
        assert peak < 10 * 2**20


def test_a_path_that_is_too_deep() -> None:
    assert "nested more than 64 deep" in str(refusal("simclr-v1", "a" + ".a" * 20_000 + "=1"))
    assert "there is no such field" in str(refusal("simclr-v1", "a" + ".a" * 60 + "=1"))


def test_many_keys_are_refused_or_take_no_time(tmp_path: Path) -> None:
    def keys(count: int) -> str:
        return "method:\n  loss:\n" + "".join(f"    k{number}: {{}}\n" for number in range(count))

    assert "more than 50000 keys and values" in sentence(tmp_path, "schema: 1\nextends: simclr-v1\n" + keys(100_000))
    (tmp_path / "parent.yaml").write_text("schema: 1\nextends: simclr-v1\n" + keys(20_000), "utf-8")
    said = sentence(tmp_path, "schema: 1\nextends: parent.yaml\n" + keys(20_000))  # each replaces a block
    assert said.startswith("method.loss.k0: there is no such field")
    assert said.endswith("and 19995 more")
    with pytest.raises(ContralexError, match="more than 50000 keys and values"):
        resolve_data({"schema": 1, "method": {"loss": {str(number): 1 for number in range(100_000)}}})


def test_no_message_is_a_book(tmp_path: Path) -> None:
    book = "x" * 100_000
    presets = "presets:\n" + "".join(f"  p{number}: {{}}\n" for number in range(10_000))
    (tmp_path / "presets.yaml").write_text(f"schema: 1\nextends: simclr-v1\n{presets}", "utf-8")
    for recipe, options in (
        ("simclr-v1", {"sets": [book]}),
        ("simclr-v1", {"sets": [f"{book}=1"]}),
        ("simclr-v1", {"sets": [f"method.loss.{book}=1"]}),
        ("simclr-v1", {"sets": [f"method.loss.kind={book}"]}),
        ("simclr-v1", {"sets": [f"train.epochs={'[' * 100_000}"]}),
        ("simclr-v1", {"sets": [f"plugins=[{book}]"]}),
        ("simclr-v1", {"preset": book}),
        ("simclr-v1", {"data": book}),
        (book, {}),
        (str(tmp_path / "presets.yaml"), {"preset": "none"}),
    ):
        with pytest.raises(ContralexError) as error:
            resolve(recipe, **options)  # type: ignore[arg-type]
        assert 0 < len(str(error.value)) < 4100


def test_aliases_are_refused_before_they_multiply(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for one, two in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{two}: &{two} [{', '.join([f'*{one}'] * 9)}]\n"
    assert "a recipe has no aliases" in sentence(tmp_path, "schema: 1\n" + bomb)
    assert "a recipe has no aliases" in sentence(tmp_path, "schema: 1\na: &a {b: *a}")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("1" * 10**5, "a whole number has at most 40 digits"),
        ("0x" + "f" * 10**5, "a whole number has at most 40 digits"),
        ("!!int '" + "1" * 10**5 + "'", "a whole number has at most 40 digits"),
        ("1e99999999", "finite number"),
        (".nan", "finite number"),
    ],
)
def test_numbers_out_of_all_bounds(tmp_path: Path, value: str, problem: str) -> None:
    said = sentence(tmp_path, f"schema: 1\nextends: simclr-v1\ntrain: {{optimizer: {{lr: {value}}}}}\n")
    assert problem in said
    assert len(said) < 300


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    assert "has more than 4194304" in sentence(tmp_path, "#" * (2**22 + 1))


def test_data_in_memory_has_the_same_bounds() -> None:
    deep: object = 1
    for _ in range(5000):
        deep = [deep]
    for data, problem in (
        ({"schema": 1, "method": deep}, "nested more than 64 deep"),
        ({"schema": 1, "train": {"epochs": 10**4000}}, "more than 40 digits"),
        ({"schema": 1, "summary": "\ud800"}, "no text that UTF-8 can hold"),
    ):
        with pytest.raises(ContralexError, match=problem):
            resolve_data(data)


def test_paths_that_are_none(tmp_path: Path) -> None:
    for path in ("~nobody-here/x.yaml", "x" * 5000 + "/y.yaml", "a\0b.yaml"):
        with pytest.raises(ContralexError):
            resolve(path)
        sentence(tmp_path, json.dumps({"schema": 1, "extends": path}))
        sentence(tmp_path, json.dumps({"schema": 1, "extends": "simclr-v1", "code": path}))
        with pytest.raises(ContralexError):
            resolve("simclr-v1", data=path.removesuffix(".yaml"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ContralexError, match="there is no file"):
        resolve(str(tmp_path / "pipe.yaml"))


def test_counts_that_would_fill_the_memory(tmp_path: Path) -> None:
    views = "{groups: {crops: {count: 99999999999, augment: {order: [crop], crop: {size: 32, scale: [0.2, 1]}}}}}"
    assert "must be at most 256" in sentence(tmp_path, f"schema: 1\nextends: simclr-v1\nmethod: {{views: {views}}}\n")


def test_a_schedule_that_overflows(tmp_path: Path) -> None:
    steps = "{kind: steps, start: 0.1, factor: 1e200, at: [1, 2, 3]}"
    text = f"schema: 1\nextends: byol\nmethod: {{key_encoder: {{kind: momentum, momentum: {steps}}}}}\n"
    assert "momentum" in sentence(tmp_path, text)
