"""VICRegL's local criterion, by vectors and by location, against loops in float64, on one process and on two; and steps
of the method with both."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from contralex.errors import ContralexError
from contralex.lookup import distributed
from contralex.plugin import Clock, Dictionary, Match, Rows, Step, View
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex_barlow.losses import LocalVICRegLoss
from contralex_barlow.places import NearestPlaceTargets
from tests.parity.test_methods import EXPANDER, SAMPLE, B, equal, images, made, take_equal_steps
from tests.processes import free_port, join, spawn

P, Q, D, WEIGHTS = 6, 4, 5, (25.0, 20.0, 3.0)


def maps() -> tuple[Tensor, Tensor]:
    """(B, P, D) and (B, Q, D) of one batch: the views differ in size, and every hinge is at work on some dimensions."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(B, places, D, generator=generator, dtype=torch.float64) for places in (P, Q))
    return one, other * torch.linspace(0.5, 2, D, dtype=torch.float64)


def locations() -> tuple[Tensor, Tensor]:
    """(B, P, 2) and (B, Q, 2) where the places of a batch lie."""
    generator = torch.Generator().manual_seed(2)
    return tuple(200 * torch.rand(B, places, 2, generator=generator, dtype=torch.float64) for places in (P, Q))  # type: ignore[return-value]


def local(
    one: Tensor, other: Tensor, sample: Tensor, keep: int | None, at: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    step, match = Step(Clock(0, 10, 5), seed=0, batch=B), Match(0, 1)
    queries, keys = Rows.from_view(one, sample, 0), Rows.from_view(other, sample, 1)
    if at is not None:
        step.queries = {"where": Rows.from_view(at[0], sample, 0)}
        step.keys = {"where": Rows.from_view(at[1], sample, 1)}
    generator = NearestPlaceTargets("where" if at is not None else None)
    targets = generator(queries, keys, Dictionary(), match, step)
    loss: Tensor = LocalVICRegLoss(*WEIGHTS, keep=keep)(queries, Dictionary(), targets, step)
    return loss


def loops(one: Tensor, other: Tensor, keep: int | None, at: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """main_vicregl.py's ``neirest_neighbores_on_l2`` or ``_on_location``, and ``_vicreg_loss``, number by number."""
    samples, places, dim = one.shape
    asked, found = at if at is not None else (one, other)
    mine, theirs = [], []
    for i in range(samples):
        gaps = [
            [float((asked[i, s] - found[i, t]).detach().norm()) for t in range(other.shape[1])] for s in range(places)
        ]
        closest = sorted(range(places), key=lambda s: min(gaps[s]))[:keep]
        mine.append([one[i, s] for s in sorted(closest)])
        theirs.append([other[i, gaps[s].index(min(gaps[s]))] for s in sorted(closest)])
    slots = len(mine[0])
    invariance, variance, covariance = WEIGHTS
    total = torch.zeros((), dtype=one.dtype)
    for i in range(samples):
        for s in range(slots):
            total = total + invariance * (mine[i][s] - theirs[i][s]).square().sum() / (samples * slots * dim)
    for side in (mine, theirs):
        for s in range(slots):
            x = torch.stack([side[i][s] for i in range(samples)])
            x = x - x.mean(dim=0)
            cov = [[(x[:, a] * x[:, b]).sum() / (samples - 1) for b in range(dim)] for a in range(dim)]
            for a in range(dim):
                total = total + variance * torch.relu(1 - (cov[a][a] + 1e-4).sqrt()) / (2 * slots * dim)
                for b in range(dim):
                    total = total + (covariance * cov[a][b] ** 2 / (2 * slots * dim) if a != b else 0.0)
    return total


def gradients(sides: tuple[Tensor, Tensor], loss: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, sides)


def leaves() -> tuple[Tensor, Tensor]:
    one, other = maps()
    return one.requires_grad_(), other.requires_grad_()


@pytest.mark.parametrize("by_location", [False, True])
@pytest.mark.parametrize("keep", [None, 3, 50])
def test_equals_loops_with_the_gradient_of_both_sides(keep: int | None, by_location: bool) -> None:
    mine, theirs, at = leaves(), leaves(), locations() if by_location else None
    found, expected = local(*mine, SAMPLE, keep, at), loops(*theirs, keep, at)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, other in zip(gradients(mine, found), gradients(theirs, expected), strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-12)


def test_fewer_pairs_are_the_closest() -> None:
    one, other = maps()
    apart = [float(LocalVICRegLoss(1, 0, 0, keep=keep)(*_matched(one, other))) for keep in (1, 3, None)]
    assert apart == sorted(apart) and apart[0] < apart[2]


def test_the_two_matches_find_different_partners() -> None:
    one, other = maps()
    losses = [float(local(one, other, SAMPLE, 3, at)) for at in (None, locations())]
    assert losses[1] > 1.1 * losses[0]  # those that lie near each other are not the most alike


def test_pairs_that_lie_closest_are_kept_whatever_their_vectors() -> None:
    """Of each image the one pair at the same point, which is made the least alike."""
    one, other = maps()
    asked, found = locations()
    found[:, 2] = asked[:, 4]
    one[:, 4] += 100
    kept = local(one, other, SAMPLE, 1, (asked, found))
    invariance = 25 * (one[:, 4] - other[:, 2]).square().mean()
    assert kept > invariance > 1e4
    spread = local(one, other, SAMPLE, 1, (asked, found)) - invariance
    assert spread < 0.1 * invariance


def _matched(one: Tensor, other: Tensor) -> Any:
    step = Step(Clock(0, 10, 5), seed=0, batch=B)
    queries, keys = Rows.from_view(one, SAMPLE, 0), Rows.from_view(other, SAMPLE, 1)
    return queries, Dictionary(), NearestPlaceTargets()(queries, keys, Dictionary(), Match(0, 1), step), step


def test_a_place_meets_those_of_its_own_image_alone() -> None:
    """Keys of every process, in another order: each query finds its image's."""
    one, other = maps()
    step, order = Step(Clock(0, 10, 5), seed=0, batch=B), torch.randperm(B, generator=torch.Generator().manual_seed(1))
    queries = Rows.from_view(one, SAMPLE, 0)
    straight, mixed = (
        NearestPlaceTargets()(queries, Rows.from_view(keys, sample, 1), Dictionary(), Match(0, 1), step).vectors
        for keys, sample in ((other, SAMPLE), (other[order], SAMPLE[order]))
    )
    assert torch.equal(straight, mixed)


def worker(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    own = distributed.own_slice(B // 2)
    found = []
    for at in (None, locations()):
        one, other = (side[own].detach().requires_grad_() for side in maps())
        loss = local(one, other, SAMPLE[own], 3, None if at is None else (at[0][own], at[1][own]))
        found.append((distributed.mean_over_processes(loss.detach()), *gradients((one, other), loss)))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    port = free_port()
    spawn(worker, (port, str(tmp_path)))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for match, at in enumerate((None, locations())):
        sides = leaves()
        expected = local(*sides, SAMPLE, 3, at)
        whole = gradients(sides, expected)
        for rank in ranks:
            torch.testing.assert_close(rank[match][0], expected.detach(), rtol=1e-12, atol=1e-12)
        for side in (0, 1):  # DistributedDataParallel takes the mean over the processes
            found = torch.cat([rank[match][1 + side] for rank in ranks]) / 2
            torch.testing.assert_close(found, whole[side], rtol=1e-10, atol=1e-12)


OUTPUT = (
    "method.encoder.outputs={dense: {reads: places, normalize: false, "
    "projector: [{width: 12, norm: batch, activation: relu}, {width: 6, bias: false}]}}"
)
LOOK_UP = (
    "method.look_ups.dense={of: dense, negatives: none, targets: nearest_place, loss: {kind: local_vicreg, keep: 4}, "
    "matches: every, weight: 0.25}"
)


@pytest.mark.parametrize("recipe", ["vicreg", "simclr-v1", "moco-v2"])
def test_any_method_with_a_dense_look_up_is_a_few_lines(recipe: str) -> None:
    """Both directions have half the weight, and the places of the backbone get the gradient."""
    model: Any = made(recipe, OUTPUT, LOOK_UP)
    moment = Step(Clock(0, 100, 5), seed=0, batch=B)
    found = model(images(2), SAMPLE, moment)
    asked, keys = moment.queries["dense"], moment.keys["dense"]
    sides = [
        tuple(rows.select_view(view).vectors.unflatten(0, (B, -1)) for rows, view in ((asked, a), (keys, b)))
        for a, b in ((0, 1), (1, 0))
    ]
    defaults = LocalVICRegLoss()
    weights = (defaults.invariance, defaults.variance, defaults.covariance)
    assert weights == (25, 25, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "WEIGHTS", weights)
        expected = sum(loops(one.double(), other.double(), 4) for one, other in sides) / 2
    equal(found.answers["dense"].loss, expected, "the loss of places")
    total = found.answers["main"].loss + 0.25 * found.answers["dense"].loss
    equal(found.loss, total, "the loss")
    found.loss.backward()
    assert model.encoder.heads["dense"].projector[0].weight.grad.abs().max() > 1e-6


def test_simclr_of_a_resnet_takes_a_step() -> None:
    run = resolve(
        "simclr-v1",
        sets=["method.encoder.backbone={kind: torchvision, name: resnet18}", "train.precision=fp32", OUTPUT, LOOK_UP],
    ).run
    model: Any = build.look_up(run, 40).train()
    optimizer = torch.optim.SGD(model.encoder.parameters(), lr=0.1)
    views = {view: each.float() for view, each in images(2, size=64).items()}
    before = model.encoder.heads["dense"].projector[0].weight.detach().clone()
    moment = Step(Clock(0, 100, 5), seed=0, batch=B)
    found = model(views, SAMPLE, moment)
    assert moment.queries["dense"].per_sample == 4  # 64 pixels are 2 x 2 places
    found.loss.backward()
    optimizer.step()
    model.update(found.keys, moment)
    assert torch.isfinite(found.loss) and not torch.equal(before, model.encoder.heads["dense"].projector[0].weight)


def test_unit_vectors_are_refused() -> None:
    with pytest.raises(ContralexError, match=r"needs any length from method\.encoder"):
        made("vicreg", OUTPUT.replace("normalize: false", "normalize: true"), LOOK_UP)


# The method with both look-ups of places.

LOCATED = OUTPUT.replace("outputs={", "outputs={where: {reads: coordinates}, ")
BY_LOCATION = (
    "method.look_ups.near={of: dense, negatives: none, targets: {kind: nearest_place, coordinates: where}, "
    "loss: {kind: local_vicreg, keep: 5}, matches: every, weight: 0.25}"
)
BOTH = ("method.views.boxes=true", LOCATED, LOOK_UP, BY_LOCATION, "method.weight=0.75")


def boxed(number: int) -> dict[int, View]:
    """The views of a step, half of them mirrored."""
    generator = torch.Generator().manual_seed(number)
    views = {}
    for view in (0, 1):
        corner, sides = (torch.rand(B, 2, generator=generator) * most for most in (40, 60))
        flipped = torch.arange(B) % 4 < 2 if view else torch.arange(B) % 2 < 1
        pixels = torch.rand(B, 3, 16, 16, generator=generator, dtype=torch.float64)
        views[view] = View(pixels, boxes=torch.cat([corner, sides + 20], dim=1), flipped=flipped)
    return views


def grid(view: View, side: int) -> Tensor:
    """transforms.py's ``_location_to_NxN_grid``: from a place to the next by addition, then mirrored."""
    grids = []
    for (top, left, height, width), mirrored in zip(view.boxes.tolist(), view.flipped.tolist(), strict=True):
        rows, columns = [top + height / side / 2], [left + width / side / 2]
        for _ in range(side - 1):
            rows.append(rows[-1] + height / side)
            columns.append(columns[-1] + width / side)
        if mirrored:
            columns.reverse()
        grids.append([[row, column] for row in rows for column in columns])
    return torch.tensor(grids, dtype=torch.float64)


def test_steps_with_both_look_ups_equal_an_independent_implementation() -> None:
    ours: Any = made("vicreg", EXPANDER, *BOTH)
    theirs = copy.deepcopy(ours)

    def official(views: dict[int, View]) -> Tensor:
        vectors, dense = [], []
        for view in (0, 1):
            pooled, places = theirs.encoder.backbone.encode_places(views[view].pixels)
            vectors.append(theirs.encoder.projector(pooled))
            dense.append(theirs.encoder.heads["dense"].projector(places.flatten(0, 1)).unflatten(0, (B, -1)))
        at = [grid(views[view], 4) for view in (0, 1)]
        weights = 25.0, 25.0, 1.0
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "WEIGHTS", weights)
            places = sum(
                (loops(dense[a], dense[b], 4) + loops(dense[a], dense[b], 5, (at[a], at[b]))) / 2
                for a, b in ((0, 1), (1, 0))
            )
            # One place of each: v is the mean of both views', c their sum, where the local one has the mean
            patch.setitem(globals(), "WEIGHTS", (25.0, 25.0, 2.0))
            whole = loops(vectors[0].unsqueeze(1), vectors[1].unsqueeze(1), None)
        return 0.75 * whole + 0.25 * places

    for _ in take_equal_steps(ours, theirs, boxed, official, rate=0.002):
        pass


def test_a_mirrored_crop_meets_other_partners() -> None:
    """Boxes and flips are heeded: without the flips the loss is another."""
    model: Any = made("vicreg", *BOTH)
    views = boxed(0)
    unflipped = {
        number: View(v.pixels, boxes=v.boxes, flipped=torch.zeros_like(v.flipped)) for number, v in views.items()
    }
    losses = []
    for shown in (views, unflipped):
        answers = model(shown, SAMPLE, Step(Clock(0, 100, 5), seed=0, batch=B)).answers
        losses.append((float(answers["dense"].loss), float(answers["near"].loss)))
    assert losses[0][0] == pytest.approx(losses[1][0]) and abs(losses[0][1] / losses[1][1] - 1) > 0.01


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("method.views.boxes=false", "method.encoder (image) needs boxes from method.views (crops gives images)"),
        (
            OUTPUT,
            "method.look_ups.near.targets asks for the output where of method.encoder (image), which has dense and",
        ),
    ],
)
def test_without_boxes_or_coordinates_it_is_refused(setting: str, sentence: str) -> None:
    rest = BOTH[2:]
    with pytest.raises(ContralexError) as caught:
        made("vicreg", *((LOCATED, *rest, setting) if "views" in setting else (*rest, setting)))
    assert sentence in str(caught.value)


def test_an_output_that_has_no_coordinates_is_named() -> None:
    model = made("vicreg", *BOTH, "method.look_ups.near.targets.coordinates=dense")
    with pytest.raises(ContralexError, match="reads dense as the coordinates of 16 places, and it has 16 rows of 6"):
        model(boxed(0), SAMPLE, Step(Clock(0, 100, 5), seed=0, batch=B))
