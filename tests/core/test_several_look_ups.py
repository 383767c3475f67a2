"""A method that asks one encoding several questions: its loss is their weighted sum, each with its own dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.kinds.key_encoders.parts import MomentumEncoder, SharedKeyEncoder
from contralex.kinds.losses.parts import CosineLoss, InfoNCE
from contralex.kinds.negatives.parts import NoNegatives, QueueSource
from contralex.kinds.targets.parts import InstanceTargets, KeyVectorTargets
from contralex.lookup.clock import Clock
from contralex.lookup.question import Question
from contralex.lookup.slots import Encoder, KeyEncoder
from contralex.lookup.step import LookUp
from contralex.lookup.values import Match, Rows, Step
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex.training.train_step import _forward_state

B = 6
SAMPLE = torch.arange(3, 3 + B)
REGRESS = "method.look_ups.regress={negatives: none, targets: key_vector, loss: cosine, matches: forward, weight: 0.5}"
SMALL = ("method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}", "method.negatives.size=12")


def step(number: int = 0, micro_batch: int | None = None) -> Step:
    return Step(Clock(number, 100, 5), seed=0, batch=B, micro_batch=micro_batch)


def images(count: int = 2) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {view: torch.rand(B, 3, 16, 16, generator=generator) for view in range(count)}


def gradients(method: LookUp, loss: Tensor) -> dict[str, Tensor]:
    method.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def moco(*sets: str) -> LookUp:
    return build.look_up(resolve("moco-v2", preset="digits", sets=[*SMALL, *sets]).run, 40)


def test_the_loss_is_the_weighted_sum_of_the_look_ups() -> None:
    both, queue = moco(REGRESS), moco()
    alone = moco("method.negatives=none", "method.targets=key_vector", "method.loss=cosine")
    assert {name for name in both.state_dict() if not name.startswith("look_ups.")} == set(queue.state_dict())
    found = both(images(), SAMPLE, step())
    first, second = queue(images(), SAMPLE, step()), alone(images(), SAMPLE, step())
    torch.testing.assert_close(found.loss, first.loss + 0.5 * second.loss)
    torch.testing.assert_close(found.answers["main"].loss, first.loss.detach())
    torch.testing.assert_close(found.answers["regress"].loss, second.loss.detach())
    assert found.accuracy == first.accuracy and found.entries == first.entries
    assert found.answers["regress"].accuracy == second.accuracy and found.answers["regress"].entries == 0
    mine, one, other = (
        gradients(method, each.loss) for method, each in ((both, found), (queue, first), (alone, second))
    )
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, one[name] + 0.5 * other[name])


def test_what_a_part_says_of_its_slot_is_said_of_its_look_ups() -> None:
    sets = (
        "method.encoder.outputs={logits: {projector: [{width: 5}], normalize: false}}",
        "method.look_ups.kinds={of: logits, negatives: {kind: classes, count: 7}, targets: class_label, "
        "loss: {kind: info_nce, temperature: 1}, matches: self}",
    )
    with pytest.raises(ContralexError, match=r"^method\.look_ups\.kinds\.negatives has 7 classes"):
        moco(*sets)


def test_a_weight_may_be_a_schedule() -> None:
    rising = "method.look_ups.regress.weight={kind: linear, start: 0.0, end: 1.0, epochs: 20}"
    method = moco(REGRESS, rising)
    found = method(images(), SAMPLE, step(25))
    parts = {name: float(answer.loss) for name, answer in found.answers.items()}
    assert float(found.loss.detach()) == pytest.approx(parts["main"] + 0.25 * parts["regress"], rel=1e-6)


def test_a_look_up_that_is_not_the_main_one_keeps_its_own_queue() -> None:
    method = moco(
        "method.look_ups.second={negatives: {kind: queue, size: 12}, targets: instance, "
        "loss: {kind: info_nce, temperature: 0.5}, matches: ['1->0']}"
    )
    before = {name: buffer.clone() for name, buffer in method.named_buffers() if "negatives" in name}
    moment = step()
    method.update(method(images(), SAMPLE, moment).keys, moment)
    for prefix, view in (("negatives", 1), ("look_ups.second.negatives", 0)):
        queue = dict(method.named_buffers())[f"{prefix}.vectors"]
        assert not torch.equal(queue, before[f"{prefix}.vectors"])
        torch.testing.assert_close(queue[:B], moment.keys["image"].select_view(view).vectors)


class Dense(Encoder):
    """An image vector and four places, by one network."""

    dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(3 * 64, 12)
        self.whole, self.place = nn.Linear(12, 5), nn.Linear(12, 7)

    @property
    def outputs(self) -> Mapping[str, int]:
        return {"image": 5, "places": 7, "raw": 12}

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Any]:
        found = {}
        for view, image in views.items():
            patches = image.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(len(image), 4, -1)
            places = torch.tanh(self.patches(patches))
            found[view] = {"pooled": places.mean(dim=1), "places": places}
        return found

    def features(self, view: Tensor) -> Tensor:
        pooled: Tensor = self({0: view})[0]["pooled"]
        return pooled

    def keys(self, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (F.normalize(self.whole(each["pooled"]), dim=1), None) for view, each in embedded.items()}

    def keys_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        if output == "image":
            return self.keys(embedded)
        if output == "raw":
            return {view: (each["places"], None) for view, each in embedded.items()}
        return {view: (F.normalize(self.place(each["places"]), dim=2), None) for view, each in embedded.items()}

    queries_of = keys_of


def dense(key_encoder: Callable[[Encoder], KeyEncoder], both_ways: bool = True) -> LookUp:
    torch.manual_seed(0)
    encoder = Dense()
    forth, back = Match(0, 1), Match(1, 0)
    places = Question(
        NoNegatives(),
        KeyVectorTargets(),
        CosineLoss(),
        [forth, back] if both_ways else [forth],
        weight=0.5,
        of="places",
    )
    return LookUp(
        encoder,
        key_encoder(encoder),
        QueueSource(size=12, dim=5),
        InstanceTargets(),
        InfoNCE(temperature=0.2),
        [forth],
        look_ups={"places": places},
    )


KEY_ENCODERS: dict[str, Callable[[Encoder], KeyEncoder]] = {
    "momentum": lambda encoder: MomentumEncoder(encoder, momentum=0.9),
    "shuffled": lambda encoder: MomentumEncoder(encoder, momentum=0.9, shuffle_bn=True),
    "shared": lambda encoder: SharedKeyEncoder(gradient=True),
    "stopped": lambda encoder: SharedKeyEncoder(gradient=False),
}


@pytest.mark.parametrize("key_encoder", KEY_ENCODERS)
def test_each_look_up_has_the_rows_of_its_output(key_encoder: str) -> None:
    method = dense(KEY_ENCODERS[key_encoder])
    views, moment = images(), step()
    queue = dict(method.named_buffers())["negatives.vectors"].clone()
    found = method(views, SAMPLE, moment)
    encoder = method.encoder
    embedded = {view: encoder({view: image})[view] for view, image in views.items()}
    whole = {view: F.normalize(encoder.whole(each["pooled"]), dim=1) for view, each in embedded.items()}
    place = {view: F.normalize(encoder.place(each["places"]), dim=2) for view, each in embedded.items()}
    stopped = key_encoder != "shared"
    key, target = (
        (whole[1].detach() if stopped else whole[1]),
        {v: p.detach() if stopped else p for v, p in place.items()},
    )
    logits = torch.cat([(whole[0] * key).sum(1, keepdim=True), whole[0] @ queue.T], dim=1) / 0.2
    main = F.cross_entropy(logits, torch.zeros(B, dtype=torch.long))
    both = [2 - 2 * (place[query] * target[other]).sum(dim=2).mean() for query, other in ((0, 1), (1, 0))]
    torch.testing.assert_close(found.answers["main"].loss, main.detach())
    torch.testing.assert_close(found.answers["places"].loss, torch.stack(both).mean().detach())
    wanted = gradients(method, main + 0.5 * torch.stack(both).mean())
    mine = gradients(method, found.loss)
    assert mine.keys() == wanted.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, wanted[name])
    method.update(found.keys, moment)
    torch.testing.assert_close(dict(method.named_buffers())["negatives.vectors"][:B], key.detach())


@pytest.mark.parametrize("key_encoder", KEY_ENCODERS)
def test_micro_batches_change_nothing(key_encoder: str) -> None:
    found = {}
    for micro in (None, 2):
        method = dense(KEY_ENCODERS[key_encoder])
        moment = step(micro_batch=micro)
        result = method(images(), SAMPLE, moment)
        grad = gradients(method, result.loss)
        method.update(result.keys, moment)
        found[micro] = {"loss": result.loss.detach(), **grad, **dict(method.named_buffers())}
    assert found[None].keys() == found[2].keys()
    for name, tensor in found[None].items():
        torch.testing.assert_close(tensor, found[2][name])


class Remembering(KeyVectorTargets):
    """Targets whose state follows the queries, and that read another output of the encoder."""

    reads = ("raw",)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(7))
        self.seen: list[int] = []

    def forward(self, queries: Rows, keys: Rows, *rest: Any) -> Any:
        moment = rest[-1]
        self.seen += [moment.queries["raw"].vectors.shape[1], len(moment.keys["raw"])]
        return super().forward(queries, keys, *rest)

    def follow(self, queries: Rows, keys: Rows, step: Step) -> None:
        self.mean = queries.vectors.mean(dim=0)


def test_state_may_follow_the_queries_and_other_outputs_can_be_read() -> None:
    method = dense(KEY_ENCODERS["stopped"])
    targets = Remembering()
    places = Question(NoNegatives(), targets, CosineLoss(), [Match(0, 1)], of="places")
    method = LookUp(
        method.encoder,
        method.key_encoder,
        method.negatives,
        method.targets,
        method.loss,
        method.matches,
        look_ups={"places": places},
    )
    moment = step()
    found = method(images(), SAMPLE, moment)
    method.update(found.keys, moment)
    assert targets.seen == [12, 4 * B]
    torch.testing.assert_close(targets.mean, moment.queries["places"].select_view(0).vectors.mean(dim=0))


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["method.look_ups.x={negatives: none, targets: key_vector, loss: cosine}"], "method.look_ups.x.matches"),
        ([REGRESS, "method.look_ups.regress.loss=cosin"], "method.look_ups.regress.loss"),
        ([REGRESS, "method.look_ups.regress.of=places"], "method.look_ups.regress.of asks for the output places"),
        ([REGRESS, "method.look_ups.regress.matches=['0->7']"], "method.look_ups.regress.matches asks for view 7"),
        ([REGRESS, "method.look_ups.regress.targets=instance"], "method.look_ups.regress.targets"),
        ([REGRESS.replace("regress", "main")], "choose another"),
        ([REGRESS.replace("regress", "Regress")], "method.look_ups"),
        (["method.of=places"], "method.of asks for the output places"),
    ],
)
def test_a_look_up_that_cannot_work_is_refused_where_it_stands(sets: list[str], sentence: str) -> None:
    with pytest.raises(ContralexError) as caught:
        resolve("moco-v2", sets=sets)
    assert sentence in str(caught.value)


def test_a_method_of_one_look_up_is_written_as_ever() -> None:
    plain, said = (
        resolve("moco-v2"),
        resolve("moco-v2", sets=["method.weight=1", "method.of=image", "method.look_ups={}"]),
    )
    assert plain.digest == said.digest and plain.data == said.data
    assert "look_ups" not in plain.data["method"]
    several = resolve("moco-v2", sets=[REGRESS])
    assert several.digest != plain.digest
    assert several.data["method"]["look_ups"]["regress"]["loss"]["kind"] == "cosine"
    assert {key: value for key, value in several.data["method"].items() if key != "look_ups"} == plain.data["method"]


class Counting(KeyVectorTargets):
    """Keeps something in the step's cache, as its namesake in another look-up does."""

    def forward(self, queries: Rows, keys: Rows, *rest: Any) -> Any:
        rest[-1].cache["seen"] = rest[-1].cache.get("seen", 0) + 1
        return super().forward(queries, keys, *rest)


def test_each_look_up_has_a_cache_of_its_own() -> None:
    encoder = Dense()
    forth = [Match(0, 1)]
    other = Question(NoNegatives(), Counting(), CosineLoss(), forth, of="places")
    method = LookUp(
        encoder, SharedKeyEncoder(gradient=False), NoNegatives(), Counting(), CosineLoss(), forth, look_ups={"b": other}
    )
    moment = step()
    method(images(), SAMPLE, moment)
    assert moment.cache == {"seen": 1} and moment.of_look_up("b").cache == {"seen": 1}
    joined = Step.join([moment, moment])
    assert [cache["seen"] for cache in joined.of_look_up("b").caches] == [1, 1]


SWAV = ("method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}", "method.negatives.count=10")
BORROWED = (
    "method.look_ups.again={negatives: borrowed, targets: {kind: sinkhorn, epsilon: 0.05, iterations: 3}, "
    "loss: {kind: soft_cross_entropy, temperature: 0.1}, matches: every}"
)


def test_prototypes_can_be_borrowed() -> None:
    alone = build.look_up(resolve("swav", preset="digits", sets=SWAV).run, 40)
    twice = build.look_up(resolve("swav", preset="digits", sets=[*SWAV, BORROWED]).run, 40)
    assert set(alone.state_dict()) == set(twice.state_dict())
    views = {view: torch.rand(B, 3, 16, 16, generator=torch.Generator().manual_seed(view)) for view in range(4)}
    one, two = alone(views, SAMPLE, step()), twice(views, SAMPLE, step())
    torch.testing.assert_close(two.loss, 2 * one.loss)
    wanted = gradients(alone, one.loss)
    for name, gradient in gradients(twice, two.loss).items():
        torch.testing.assert_close(gradient, 2 * wanted[name])


def test_what_is_borrowed_must_stand_before() -> None:
    with pytest.raises(
        ContralexError, match="borrows the dictionary of the look-up later, and those before it are main"
    ):
        resolve("swav", sets=[BORROWED.replace("negatives: borrowed", "negatives: {kind: borrowed, look_up: later}")])
    with pytest.raises(ContralexError, match=r"method.negatives borrows .* none stands before it"):
        resolve("swav", sets=["method.negatives=borrowed"])


def test_what_a_step_is_undone_to_is_all_but_the_dictionaries() -> None:
    """An encoder may have a part of the name of a slot."""
    second = "{negatives: {kind: queue, size: 12}, targets: instance, loss: {kind: info_nce, temperature: 0.5}, "
    method = moco(f"method.look_ups.second={second} matches: forward}}")
    method.encoder.negatives = nn.BatchNorm1d(3)
    kept = {id(buffer) for buffer in _forward_state(method)}
    wanted = {
        id(buffer)
        for name, buffer in method.named_buffers()
        if not name.startswith(("negatives.", "look_ups.second.negatives."))
    }
    assert kept == wanted and id(method.encoder.negatives.running_mean) in kept
