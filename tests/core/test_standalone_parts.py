"""Each part of the core, made by hand with keyword arguments, is the part that its spec builds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.kinds.negatives.parts import BorrowedSource
from contralex.plugin import (
    NCE,
    BuildContext,
    ClassLabelTargets,
    ClassSource,
    Clock,
    CosineLoss,
    Dictionary,
    Encoder,
    FrozenEncoder,
    InBatchSource,
    InfoNCE,
    InstanceTargets,
    KeySoftmaxTargets,
    KeyVectorTargets,
    KoLeo,
    Match,
    MeanEntropy,
    MemoryBankSource,
    MomentumEncoder,
    NoNegatives,
    PrototypeSource,
    QueueSource,
    Rows,
    SharedKeyEncoder,
    SoftCrossEntropy,
    Step,
    Targets,
    TeacherLogitsTargets,
)
from contralex.plugins.registry import registry
from contralex.recipes.schedules import Linear

DIM, SAMPLES, BATCH = 6, 20, 4
STEP = Step(Clock(step=3, total=10, per_epoch=5), seed=0, batch=BATCH)
MATCH = Match(query=0, key=1)
SAMPLE = torch.tensor([7, 0, 19, 4])
LABELS = torch.arange(SAMPLES) % DIM


class SmallEncoder(Encoder):
    dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, DIM)

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: F.normalize(self.layer(vectors), dim=1) for view, vectors in views.items()}

    def features(self, view: Tensor) -> Tensor:
        return view


def rows(view: int, seed: int) -> Rows:
    vectors = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(seed))
    return Rows.from_view(F.normalize(vectors, dim=1), SAMPLE, view)


QUERIES = rows(0, seed=1)
KEYS = Rows.cat([rows(0, seed=2), rows(1, seed=3)])
ENTRIES = F.normalize(torch.randn(8, DIM, generator=torch.Generator().manual_seed(4)), dim=1)
WEIGHTS = torch.rand(BATCH, 8, generator=torch.Generator().manual_seed(5)).softmax(dim=1)
IMAGES = {view: torch.randn(BATCH, 5, generator=torch.Generator().manual_seed(6 + view)) for view in (0, 1)}


def run_loss(loss: Any, context: BuildContext) -> list[Tensor]:
    own = ENTRIES.expand(BATCH, *ENTRIES.shape)
    index, vectors = torch.arange(BATCH), KEYS.select_view(1).vectors
    targets = Targets(index=index, weights=WEIGHTS, vectors=vectors)
    return [loss(QUERIES, Dictionary(own=own, dataset_size=SAMPLES), targets, STEP) for _ in range(2)]


def run_source(source: Any, context: BuildContext) -> list[Tensor]:
    source.prepare(STEP)
    found = []
    for _ in range(2):
        dictionary = source(QUERIES, KEYS, MATCH, STEP)
        if dictionary.size:
            found.append(dictionary.scores(QUERIES.vectors))
        source.update(KEYS, STEP)
    return found


def run_targets(targets: Any, context: BuildContext) -> list[Tensor]:
    dictionary = Dictionary(shared=KEYS.vectors, rows=KEYS)
    return list(targets(QUERIES, KEYS, dictionary, MATCH, STEP).tensors().values())


def run_key_encoder(key_encoder: Any, context: BuildContext) -> list[Tensor]:
    encoder, found = context.encoder, []
    for _ in range(2):
        found.append(key_encoder(encoder, IMAGES, encoder(IMAGES), SAMPLE, STEP).vectors)
        with torch.no_grad():
            for weight in encoder.parameters():
                weight.add_(0.1)
        key_encoder.update(STEP)
    return found


Made = Callable[[BuildContext], nn.Module]
RUN = {"loss": run_loss, "negatives": run_source, "targets": run_targets, "key_encoder": run_key_encoder}
SCHEDULE = Linear(start=0.9, end=0.5, epochs=1)
PARTS: list[tuple[str, dict[str, Any], Made]] = [
    ("loss", {"kind": "info_nce", "temperature": 0.2}, lambda c: InfoNCE(0.2)),
    (
        "loss",
        {"kind": "info_nce", "temperature": SCHEDULE, "weight": 3.0},
        lambda c: InfoNCE(temperature=SCHEDULE, weight=3.0),
    ),
    ("loss", {"kind": "nce", "temperature": 0.07}, lambda c: NCE(temperature=0.07)),
    (
        "loss",
        {"kind": "nce", "temperature": 0.07, "normalizer": "each_view"},
        lambda c: NCE(temperature=0.07, normalizer="each_view", query_views=(1, 0)),
    ),
    ("loss", {"kind": "cosine"}, lambda c: CosineLoss()),
    ("loss", {"kind": "cosine", "weight": 1.0}, lambda c: CosineLoss(weight=1.0)),
    ("loss", {"kind": "soft_cross_entropy", "temperature": 0.1}, lambda c: SoftCrossEntropy(temperature=0.1)),
    ("loss", {"kind": "koleo"}, lambda c: KoLeo()),
    ("loss", {"kind": "mean_entropy", "temperature": 0.1}, lambda c: MeanEntropy(temperature=0.1)),
    ("negatives", {"kind": "none"}, lambda c: NoNegatives()),
    ("negatives", {"kind": "in_batch", "views": "all"}, lambda c: InBatchSource("all")),
    ("negatives", {"kind": "in_batch", "views": "matched"}, lambda c: InBatchSource(views="matched")),
    ("negatives", {"kind": "queue", "size": 9}, lambda c: QueueSource(9, DIM)),
    (
        "negatives",
        {"kind": "queue", "size": 9, "placement": "sharded", "dtype": "float16"},
        lambda c: QueueSource(size=9, dim=DIM, placement="sharded", dtype="float16"),
    ),
    ("negatives", {"kind": "queue", "size": 9, "positive": False}, lambda c: QueueSource(9, DIM, positive=False)),
    (
        "negatives",
        {"kind": "memory_bank", "draws": 0},
        lambda c: MemoryBankSource(SAMPLES, DIM, 0, key_views=(0, 1)),
    ),
    (
        "negatives",
        {"kind": "memory_bank", "draws": 7, "redraw": True, "momentum": 0.3, "dtype": "bfloat16"},
        lambda c: MemoryBankSource(
            dataset_size=SAMPLES, dim=DIM, draws=7, redraw=True, momentum=0.3, dtype="bfloat16", key_views=(0, 1)
        ),
    ),
    (
        "negatives",
        {"kind": "memory_bank", "draws": 7, "placement": "sharded"},
        lambda c: MemoryBankSource(SAMPLES, DIM, draws=7, placement="sharded", key_views=(0, 1)),
    ),
    ("negatives", {"kind": "prototypes", "count": 5}, lambda c: PrototypeSource(5, DIM)),
    (
        "negatives",
        {"kind": "prototypes", "count": 5, "normalize": False},
        lambda c: PrototypeSource(count=5, dim=DIM, normalize=False),
    ),
    ("negatives", {"kind": "borrowed"}, lambda c: BorrowedSource(c.sources["main"])),
    ("negatives", {"kind": "classes", "count": DIM}, lambda c: ClassSource(DIM)),
    ("targets", {"kind": "instance"}, lambda c: InstanceTargets()),
    ("targets", {"kind": "key_vector"}, lambda c: KeyVectorTargets()),
    ("targets", {"kind": "class_label"}, lambda c: ClassLabelTargets(LABELS)),
    ("targets", {"kind": "teacher_logits"}, lambda c: TeacherLogitsTargets()),
    (
        "targets",
        {"kind": "teacher_logits", "temperature": 0.5, "hard": True, "threshold": 0.2},
        lambda c: TeacherLogitsTargets(temperature=0.5, hard=True, threshold=0.2),
    ),
    ("targets", {"kind": "key_softmax", "temperature": 0.1}, lambda c: KeySoftmaxTargets(0.1)),
    (
        "targets",
        {"kind": "key_softmax", "temperature": 0.1, "sinkhorn": 2},
        lambda c: KeySoftmaxTargets(temperature=0.1, sinkhorn=2),
    ),
    ("key_encoder", {"kind": "shared", "gradient": True}, lambda c: SharedKeyEncoder(gradient=True)),
    ("key_encoder", {"kind": "shared", "gradient": False}, lambda c: SharedKeyEncoder(gradient=False)),
    ("key_encoder", {"kind": "momentum", "momentum": 0.9}, lambda c: MomentumEncoder(c.encoder, momentum=0.9)),
    (
        "key_encoder",
        {"kind": "momentum", "momentum": SCHEDULE, "shuffle_bn": True, "init": "random"},
        lambda c: MomentumEncoder(c.encoder, SCHEDULE, shuffle_bn=True, init="random", fresh_encoder=SmallEncoder),
    ),
    ("key_encoder", {"kind": "frozen"}, lambda c: FrozenEncoder(SmallEncoder())),
    ("key_encoder", {"kind": "frozen", "checkpoint": "a-run"}, lambda c: FrozenEncoder(load_encoder("a-run"))),
]


def load_encoder(path: object) -> Encoder:
    torch.manual_seed(2)
    return SmallEncoder()


def context() -> BuildContext:
    torch.manual_seed(1)
    return BuildContext(
        dim=DIM,
        dataset_size=SAMPLES,
        batch_size=BATCH,
        key_views=(0, 1),
        query_views=(1, 0),
        encoder=SmallEncoder(),
        fresh_encoder=SmallEncoder,
        labels=LABELS,
        load_encoder=load_encoder,
        sources={"main": InBatchSource("matched")},
    )


def observe(build: Made, slot: str) -> tuple[type, list[Any]]:
    """What a part is, and its state before and after what it computes."""
    made_in = context()
    part = build(made_in)
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    return type(part), [before, RUN[slot](part, made_in), part.state_dict()]


@pytest.mark.parametrize(("slot", "values", "make"), PARTS, ids=[str(values) for _, values, _ in PARTS])
def test_a_part_made_by_hand_is_the_one_that_its_spec_builds(slot: str, values: dict[str, Any], make: Made) -> None:
    spec = registry().find(slot, values["kind"])
    assert spec is not None
    kind, built = observe(spec.model_validate(values).build, slot)
    kind_by_hand, made = observe(make, slot)
    assert kind is kind_by_hand
    torch.testing.assert_close(made, built, rtol=0, atol=0)


def test_every_kind_of_the_core_is_made_by_hand() -> None:
    made = {(slot, values["kind"]) for slot, values, _ in PARTS}
    core = {
        (slot, spec.kind_name())
        for slot in RUN
        for kind in registry().kinds(slot)
        if (spec := registry().find(slot, kind)) is not None and spec.__module__.startswith("contralex.kinds.")
    }
    assert made == core


def test_a_schedule_takes_the_place_of_a_number() -> None:
    targets, entries = Targets(index=torch.arange(BATCH)), Dictionary(shared=ENTRIES)
    begun = Step(Clock(step=0, total=10, per_epoch=5), seed=0, batch=BATCH)
    loss = InfoNCE(Linear(start=0.5, end=0.1, epochs=1))
    for step, temperature in ((begun, 0.5), (STEP, 0.5 + (0.1 - 0.5) * 3 / 5)):
        scores = QUERIES.vectors @ ENTRIES.T / temperature
        wanted = (scores.exp().sum(dim=1).log() - scores.diagonal()).mean()
        torch.testing.assert_close(loss(QUERIES, entries, targets, step), wanted)


def test_a_random_start_needs_a_way_to_make_an_encoder() -> None:
    with pytest.raises(ContralexError, match="needs fresh_encoder"):
        MomentumEncoder(SmallEncoder(), momentum=0.9, init="random")


def test_the_query_encoder_stays_the_callers() -> None:
    encoder = SmallEncoder()
    before = copy.deepcopy(encoder.state_dict())
    keys = MomentumEncoder(encoder, momentum=0.0)
    with torch.no_grad():
        encoder.layer.weight.add_(1.0)
    keys.update(STEP)
    assert torch.equal(keys.encoder.state_dict()["layer.weight"], before["layer.weight"] + 1.0)
    assert encoder.layer.weight.requires_grad and not any(weight.requires_grad for weight in keys.parameters())
    assert not any(name.startswith("_pairs") for name in keys.state_dict())
