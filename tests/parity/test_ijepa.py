"""I-JEPA equals a free-standing implementation that treats one image, one block and one head at a time: in loss, every
gradient and the moving average, over several steps, in float64. Its blocks are what the official collator draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.step import LookUp
from contralex.lookup.view import View
from tests.parity.test_mae import block, norm, positions
from tests.parity.test_methods import B, step, take_equal_steps

pytest.importorskip("timm")

SIZE, PATCH, WIDTH, NARROW = 16, 4, 12, 8
SIDE = SIZE // PATCH
SETS = (
    f"method.views.augment.crop.size={SIZE}",
    "method.views.context.more_than=1",
    f"method.encoder.backbone={{image_size: {SIZE}, patch: {PATCH}, width: {WIDTH}, depth: 2, heads: 2}}",
    f"method.encoder.predictor={{width: {NARROW}, depth: 2}}",
    "method.key_encoder.momentum=0.7",
    "method.loss.beta=0.5",
    f"train.batch_size={B}",
)


def ijepa() -> LookUp:
    from contralex.recipes.layers import resolve
    from contralex.training import build

    model = build.look_up(resolve("ijepa", preset="digits", sets=list(SETS)).run, 40).double().train()
    with torch.no_grad():  # biases that start at zero could be left out by either side
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    return model


def shown(number: int) -> View:
    """Images with contexts of 5 patches, and 4 targets of 2 × 2 that overlap."""
    generator = torch.Generator().manual_seed(number)
    corners = torch.randint(0, SIDE - 1, (B, 4, 2), generator=generator)
    targets = [
        [[(top + y) * SIDE + left + x for y in range(2) for x in range(2)] for top, left in image]
        for image in corners.tolist()
    ]
    contexts = [sorted(torch.randperm(SIDE**2, generator=generator)[:5].tolist()) for _ in range(B)]
    return View(
        torch.rand(B, 3, SIZE, SIZE, generator=generator, dtype=torch.float64),
        context=torch.tensor(contexts),
        targets=torch.tensor(targets),
        patch=torch.full((B,), PATCH),
    )


def tokens(vit: Any, image: Tensor, places: list[int]) -> Tensor:
    """(C, D) of these patches alone."""
    made = []
    for place in places:
        top, left = place // SIDE * PATCH, place % SIDE * PATCH
        cut = image[:, top : top + PATCH, left : left + PATCH]
        projected = (vit.patch_embed.proj.weight * cut).sum(dim=(1, 2, 3)) + vit.patch_embed.proj.bias
        made.append(projected + positions(vit.pos_embed[0])[place])
    x = torch.stack(made)
    for part in vit.blocks:
        x = block(x, part, heads=2)
    return norm(x, vit.norm)


def predicted(predictor: Any, seen: Tensor, context: list[int], target: list[int]) -> Tensor:
    """(T, D) of one block."""
    x = seen @ predictor.embed.weight.T + predictor.embed.bias
    table = positions(predictor.positions)
    x = x + torch.stack([table[place] for place in context])
    asked = torch.stack([predictor.mask_token[0, 0] + table[place] for place in target])
    x = torch.cat([x, asked])
    for part in predictor.blocks:
        x = block(x, part, heads=2)
    return norm(x, predictor.norm)[len(context) :] @ predictor.predict.weight.T + predictor.predict.bias


def official(model: Any, view: View) -> Tensor:
    """train.py, train_step: smooth L1 to the teacher's normalised tokens."""
    losses = []
    for image, context, targets in zip(view.pixels, view.context.tolist(), view.targets.tolist(), strict=True):
        with torch.no_grad():
            whole = tokens(model.key_encoder.encoder.backbone, image, list(range(SIDE**2)))
            centred = whole - whole.mean(dim=1, keepdim=True)
            whole = centred / (centred.pow(2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
        seen = tokens(model.encoder.backbone, image, context)
        for target in targets:
            apart = (predicted(model.encoder.predictor, seen, context, target) - whole[target]).abs()
            losses.append(torch.where(apart < 0.5, apart.pow(2), apart - 0.25))
    return torch.stack(losses).mean()


def test_three_steps_equal_the_official_code() -> None:
    ours, theirs = ijepa(), ijepa()
    for _, mine in take_equal_steps(
        ours, theirs, lambda number: {0: shown(number)}, lambda views: official(theirs, views[0]), rate=0.1
    ):
        assert "encoder.predictor.mask_token" in mine
        assert not any(name.startswith("key_encoder") or "pos_embed" in name for name in mine)
        with torch.no_grad():
            teacher, student = theirs.key_encoder.encoder, theirs.encoder
            for follower, leader in zip(teacher.parameters(), student.parameters(), strict=True):
                follower.copy_(0.7 * follower + 0.3 * leader)


def test_keys_stay_where_they_are() -> None:
    assert not ijepa().compares_samples


def test_a_shared_key_encoder_is_refused() -> None:
    from contralex.errors import ContralexError

    encoder = ijepa().encoder
    embedded = encoder({0: shown(0)})
    with pytest.raises(ContralexError, match="keys are tokens of the whole image"):
        encoder.keys(embedded)


# multiblock.py


def collate(rows: int, size: int, generator: torch.Generator) -> tuple[list[list[int]], list[list[list[int]]]]:
    """The official collator's contexts and targets, patch by patch, from the numbers that ours draws."""
    from contralex_ijepa.views import BlockCompanion

    shares = BlockCompanion(rows, 16).draw_for_batch(size, generator)
    contexts, targets = [], []
    for share in shares:
        grids = []
        for top, left, height, width in share.targets:
            assert top + height < rows and left + width < rows  # randint's end is exclusive
            grid = torch.zeros(rows, rows, dtype=torch.bool)
            grid[top : top + height, left : left + width] = True
            grids.append(grid)
        top, left, height, width = share.context
        free = torch.zeros(rows, rows, dtype=torch.bool)
        free[top : top + height, left : left + width] = True
        for grid in grids[: share.avoided]:
            free &= ~grid
        contexts.append(free.flatten().nonzero().flatten().tolist())
        targets.append([grid.flatten().nonzero().flatten().tolist() for grid in grids])
    smallest = min(len(context) for context in contexts)
    return [context[:smallest] for context in contexts], targets


def test_blocks_are_those_of_the_official_collator() -> None:
    from contralex_ijepa.views import BlockCompanion

    shapes = set()
    for seed in range(20):
        companion, rows = BlockCompanion(14, 16), 14
        contexts, targets = collate(rows, 32, torch.Generator().manual_seed(seed))
        shares = companion.draw_for_batch(32, torch.Generator().manual_seed(seed))
        drawn = [companion.draw(None, 0, None, share) for share in shares]
        assert [each["context"].tolist() for each in drawn] == contexts
        assert [each["targets"].tolist() for each in drawn] == targets
        assert len({each["context"].shape for each in drawn}) == len({each["targets"].shape for each in drawn}) == 1
        assert all(len(context) > 10 for context in contexts) and all(share.avoided == 4 for share in shares)
        assert all(set(c).isdisjoint(p for t in ts for p in t) for c, ts in zip(contexts, targets, strict=True))
        assert {share.context[:2] for share in shares} == {(0, 0)} and shares[0].context[2:] == (13, 13)
        shapes.add(shares[0].targets[0][2:])
    assert shapes <= {(5, 6), (6, 6), (6, 5), (7, 5), (8, 5), (7, 6)} and len(shapes) > 1


@pytest.mark.parametrize(("part", "wanted"), [(0.0, (5, 6)), (1.0, (8, 5))])
def test_one_number_gives_scale_and_aspect(part: float, wanted: tuple[int, int]) -> None:
    from contralex_ijepa.blocks import block_size

    assert block_size(14, 14, 0.15 + part * 0.05, 0.75 + part * 0.75) == wanted


def test_targets_are_let_go_where_no_context_is_left() -> None:
    from contralex_ijepa.spec import ContextBlock, TargetBlocks
    from contralex_ijepa.views import BlockCompanion

    companion = BlockCompanion(4, 4, TargetBlocks(count=4, scale=(0.5, 0.5)), ContextBlock(more_than=5))
    shares = companion.draw_for_batch(64, torch.Generator().manual_seed(0))
    assert min(share.avoided for share in shares) < 4
    assert all(len(share.context_places(4)) == shares[0].kept > 5 for share in shares)


def test_loss_is_torch_s() -> None:
    from contralex.lookup.dictionary import Dictionary
    from contralex.lookup.values import Rows, Targets
    from contralex_ijepa.loss import SmoothL1

    q, k = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).unbind()
    rows = Rows.from_view(q, torch.arange(6), 0)
    loss = SmoothL1()(rows, Dictionary(shared=torch.zeros(0, 5)), Targets(vectors=k), step())
    torch.testing.assert_close(loss, F.smooth_l1_loss(q, k))


# the first weights


def test_init_std_is_of_all_weights_and_of_no_position() -> None:
    from contralex_ijepa.encoder import BlockPredictor
    from contralex_ijepa.spec import Predictor
    from contralex_ijepa.vit import patch_vit_backbone

    torch.manual_seed(0)
    small = patch_vit_backbone(16, 4, width=96, depth=2, heads=4).module
    torch.manual_seed(0)
    large = patch_vit_backbone(16, 4, width=96, depth=2, heads=4, init_std=0.1).module
    for (name, first), second in zip(small.named_parameters(), large.parameters(), strict=True):
        drawn = first.ndim > 1 and "pos_embed" not in name
        torch.testing.assert_close(second, first * 5 if drawn else first)
        if drawn:
            assert second.std().item() == pytest.approx(0.1, rel=0.1), name
    predictor = BlockPredictor(96, 4, Predictor(width=96, depth=1, init_std=0.1), heads=4)
    for name, parameter in predictor.named_parameters():
        if parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.1, rel=0.3 if name == "mask_token" else 0.1), name


def test_a_default_init_std_is_no_part_of_a_digest() -> None:
    from contralex.recipes.layers import resolve

    sets = [f"method.encoder.{part}.init_std=0.02" for part in ("backbone", "predictor")]
    assert resolve("ijepa", sets=sets).digest == resolve("ijepa").digest
    assert resolve("ijepa", sets=[sets[0].replace("0.02", "0.1")]).digest != resolve("ijepa").digest
