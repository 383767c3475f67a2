"""The core asks a spec what it must know of it, and knows no kind by its name."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import contralex
from contralex.explaining import explained
from contralex.plugins.hooks import SLOTS
from contralex.plugins.registry import registry
from contralex.recipes.layers import resolve
from contralex.training import build, resuming

CORE = Path(contralex.__file__).parent
# What is of these kinds: their specs, their parts, and what `contralex new` writes. A kind may know itself.
THEIR_OWN = ("kinds/", "cli/templates/")
FILES = [file for file in sorted(CORE.rglob("*.py")) if not file.relative_to(CORE).as_posix().startswith(THEIR_OWN)]


def by_name(source: str, kinds: set[str]) -> Iterator[int]:
    """Lines on which what is called a kind is compared with, or looked up by, the name of one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            sides = [node.subject, *(case.pattern for case in node.cases)]
        else:
            continue
        asks = any("kind" in ast.unparse(side) for side in sides if not isinstance(side, ast.Constant | ast.pattern))
        named = {each.value for side in sides for each in ast.walk(side) if isinstance(each, ast.Constant)}
        if asks and named & kinds:
            yield node.lineno


def test_the_core_compares_no_kind_with_a_name() -> None:
    kinds = {kind for slot in SLOTS for kind in registry().kinds(slot)}
    found = [f"{file.relative_to(CORE)}:{line}" for file in FILES for line in by_name(file.read_text("utf-8"), kinds)]
    assert found == []


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("kind == 'momentum'", True),
        ("spec.kind_name() in ('queue', 'other')", True),
        ("'queue' == block['kind']", True),
        ("match spec.kind:\n    case 'queue':\n        pass", True),
        ("kind == 'sgd'", False),  # an optimiser's, of which no plugin brings any
        ("'labels' in spec.offers()", False),
        ("norm != 'none'", False),
    ],
)
def test_what_that_catches(source: str, caught: bool) -> None:
    assert bool(list(by_name(source, {"momentum", "queue", "labels", "none"}))) is caught


STRANGER = """
from typing import Literal
from pydantic import Field
from contralex.plugin import Spec, hookimpl

class Average(Spec):
    "A moving average of a stranger's."
    kind: Literal["my_average"] = "my_average"
    gives = frozenset({"keys"})
    key_weights = "following"

class Undeclared(Spec):
    "It does not say what it is."
    kind: Literal["my_keys"] = "my_keys"
    gives = frozenset({"keys"})

class Drawn(Spec):
    "Negatives of which `size` is no queue's."
    kind: Literal["my_negatives"] = "my_negatives"
    size: int = Field(gt=0)
    builds = ":in_batch"
    gives = frozenset({"entries", "positive"})

def in_batch(**fields):
    from contralex.plugin import InBatchSource

    return InBatchSource("matched")

class Long(Drawn):
    "Of which `depth` is one."
    kind: Literal["my_queue"] = "my_queue"
    depth: int = Field(gt=0)
    size: int = 1

    def queued(self):
        return "depth", self.depth

@hookimpl
def contralex_key_encoders():
    return [Average, Undeclared]

@hookimpl
def contralex_negative_sources():
    return [Drawn, Long]
"""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("my_average", "follows the encoder"),
        ("my_keys", "has weights of its own"),
        ("momentum", "follows the encoder"),
        ("frozen", "not trained"),
        ("shared", "the query's encoder itself"),
    ],
)
def test_explain_says_what_a_key_encoder_declares(kind: str, said: str, fake_plugin: Callable[..., Path]) -> None:
    fake_plugin("stranger", STRANGER)
    more = {"momentum": ", momentum: 0.9", "shared": ", gradient: false"}.get(kind, "")
    method = explained(resolve("moco-v2", sets=[f"method.key_encoder={{kind: {kind}{more}}}"]))
    assert method.key_side == said
    assert method.shares_weights == (kind == "shared")


def test_a_field_called_size_is_no_queue_unless_its_spec_says_so(
    fake_plugin: Callable[..., Path], recipe: Callable[..., str], tmp_path: Path
) -> None:
    from contralex.training.run import train

    fake_plugin("stranger", STRANGER)
    tiny = ["train.max_steps=1", "eval.knn=null", "train.workers=0", "method.matches=forward"]

    def run(negatives: str) -> None:
        train(resolve(recipe(), sets=[*tiny, f"method.negatives={negatives}"]), tmp_path / "run", resume=False)

    with pytest.raises(contralex.ContralexError, match=r"^method\.negatives\.depth \(9999\) is larger than the data"):
        run("{kind: my_queue, depth: 9999}")
    run("{kind: my_negatives, size: 9999}")
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(("name", "queue"), [("moco-v2", "negatives"), ("simclr-v2-memory", "negatives.queue")])
def test_a_queue_within_a_source_may_have_another_size(name: str, queue: str) -> None:
    def model(size: int) -> torch.nn.Module:
        sets = [f"method.negatives.size={size}", "method.encoder.backbone={kind: conv, widths: [4], strides: [2]}"]
        return build.look_up(resolve(name, preset="digits", sets=sets).run, dataset_size=1437)

    before, after = model(512), model(300)
    keys = torch.arange(400)
    before.get_buffer(f"{queue}.sample")[:400] = keys
    before.get_buffer(f"{queue}.pointer").fill_(400)
    state = before.state_dict()
    found = resuming.resize_sources(state, after)  # type: ignore[arg-type]
    assert found[f"{queue}.sample"].tolist() == keys[100:].tolist()  # the newest, from the oldest on
    assert torch.equal(found[f"{queue}.vectors"], state[f"{queue}.vectors"][100:400])
    after.load_state_dict(found)
    same = resuming.resize_sources(state, before)  # type: ignore[arg-type]
    assert all(torch.equal(same[path], value) for path, value in state.items())
