"""SimCLR v2's own parts: selective kernels against a loop, published sizes, and the batch with a queue beside it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.clock import Clock
from contralex.lookup.values import Match, Rows, Step
from contralex_simclr.memory import BatchAndQueue
from contralex_simclr.resnet import Bottleneck, SelectiveKernel, SKResNet, sk_resnet

# Table 1 of the official README, in millions. Running means and variances are variables of TensorFlow's, so they count.
PUBLISHED = {
    (50, 1, False): 24,
    (50, 1, True): 35,
    (50, 2, False): 94,
    (50, 2, True): 140,
    (101, 1, False): 43,
    (101, 1, True): 65,
    (101, 2, False): 170,
    (101, 2, True): 257,
    (152, 1, False): 58,
    (152, 1, True): 89,
    (152, 2, False): 233,
    (152, 2, True): 354,
    (152, 3, True): 795,
}


@pytest.mark.parametrize(("depth", "width", "selective"), PUBLISHED)
def test_parameters_are_as_many_as_published(depth: Any, width: int, selective: bool) -> None:
    with torch.device("meta"):
        made, features = sk_resnet(depth=depth, width=width, sk_ratio=0.0625 if selective else 0)
    count = sum(tensor.numel() for tensor in made.state_dict().values())
    assert round(count / 1e6) == PUBLISHED[depth, width, selective]
    assert features == 2048 * width


@torch.no_grad()
def test_selective_kernel_is_the_loop() -> None:
    torch.manual_seed(0)
    block = SelectiveKernel(4, stride=2, ratio=0.0625).train()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 4, 6, 6)

    def normal(y: Tensor, norm: Any) -> Tensor:
        over = [0, 2, 3]
        mean, variance = y.mean(over, keepdim=True), y.var(over, unbiased=False, keepdim=True)
        return (y - mean) / (variance + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    convolution, norm, _ = block.branches
    both = torch.relu(normal(F.conv2d(x, convolution.weight, stride=2, padding=1), norm))  # (B, 8, 3, 3)
    squeeze, squeeze_norm, _ = block.squeeze
    pooled = torch.zeros(5, 4)
    for i in range(5):
        for c in range(4):
            pooled[i, c] = sum(both[i, b * 4 + c, y, z] for b in range(2) for y in range(3) for z in range(3)) / 9
    between = torch.relu(normal((pooled @ squeeze.weight[:, :, 0, 0].T)[:, :, None, None], squeeze_norm))
    opinions = between[:, :, 0, 0] @ block.excite.weight[:, :, 0, 0].T  # (B, 8)
    expected = torch.zeros(5, 4, 3, 3)
    for i in range(5):
        for c in range(4):
            one, other = math.exp(opinions[i, c]), math.exp(opinions[i, 4 + c])
            expected[i, c] = (one * both[i, c] + other * both[i, 4 + c]) / (one + other)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)
    assert squeeze.weight.shape[0] == 32  # at least


def test_a_block_starts_as_its_shortcut_and_averages_before_it_projects() -> None:
    torch.manual_seed(0)
    block = Bottleneck(6, 4, stride=2, sk_ratio=0.0625).eval()
    x = torch.rand(2, 6, 5, 5)
    _, _, (projection, norm) = block.shortcut
    pooled = torch.zeros(2, 6, 3, 3)  # of an odd size: the last row and column are averaged with zeros
    for y in range(3):
        for z in range(3):
            pooled[:, :, y, z] = x[:, :, 2 * y : 2 * y + 2, 2 * z : 2 * z + 2].sum((2, 3)) / 4
    expected = torch.relu(norm(torch.einsum("oi,bixy->boxy", projection.weight[:, :, 0, 0], pooled)))
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_the_first_group_averages_without_halving() -> None:
    """TensorFlow's ``SAME``: of the last row and column, what there is."""
    torch.manual_seed(0)
    block = Bottleneck(4, 4, stride=1, sk_ratio=0.0625).eval()
    x = torch.rand(2, 4, 3, 3)
    pad, pool, _ = block.shortcut
    expected = torch.zeros_like(x)
    for y in range(3):
        for z in range(3):
            expected[:, :, y, z] = x[:, :, y : y + 2, z : z + 2].mean((2, 3))
    torch.testing.assert_close(pool(pad(x)), expected)


def test_without_selective_kernels_it_is_the_usual_resnet() -> None:
    from torchvision.models import resnet50

    torch.manual_seed(0)
    mine, theirs = SKResNet(depth=50, sk_ratio=0), resnet50(weights=None)
    theirs.fc = torch.nn.Identity()
    mine.load_state_dict(dict(zip(mine.state_dict(), _in_my_order(theirs), strict=True)))
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(mine.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


def _in_my_order(model: Any) -> list[Tensor]:
    """torchvision's tensors: a block's shortcut comes last there, and first here."""
    state = [*model.conv1.state_dict().values(), *model.bn1.state_dict().values()]
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in layer:
            own = list(block.state_dict().items())
            state += [value for name, value in own if name.startswith("downsample")]
            state += [value for name, value in own if not name.startswith("downsample")]
    return state


# The memory network's dictionary


def test_batch_and_queue_is_both_and_no_row_is_its_own_key() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    source: Any = BatchAndQueue(size=6, dim=5)
    sample = torch.tensor([7, 2, 9])
    step = Step(Clock(0, 10, 5), seed=0, batch=3)

    def both() -> Rows:
        parts = (F.normalize(torch.randn(3, 5, generator=generator), dim=1) for _ in range(2))
        return Rows.cat([Rows.from_view(part, sample, view) for view, part in enumerate(parts)])

    earlier, keys, queries = both(), both(), both()
    source.update(earlier, step)  # the same samples, so that the queue has keys of every query's own sample
    for match in (Match(0, 1), Match(1, 0)):
        asked = queries.select_view(match.query)
        found = source(asked, keys, match, step)
        scores = found.scores(asked.vectors)
        place = found.positives(asked, match)
        loss = F.cross_entropy(scores / 0.2, place)
        total = torch.zeros(())
        for i in range(3):
            negatives = []
            for view in (0, 1):
                for j in range(3):
                    if (view, j) != (match.query, i):
                        negatives.append(torch.exp(asked.vectors[i] @ keys.select_view(view).vectors[j] / 0.2))
            negatives += [torch.exp(asked.vectors[i] @ old / 0.2) for old in earlier.vectors]
            positive = torch.exp(asked.vectors[i] @ keys.select_view(match.key).vectors[i] / 0.2)
            total = total - torch.log(positive / sum(negatives))
        torch.testing.assert_close(loss, total / 3, rtol=1e-5, atol=1e-5)
        assert found.size == 6 + 6


def test_the_queue_is_written_after_the_look_up() -> None:
    source: Any = BatchAndQueue(size=4, dim=5)
    keys = Rows.from_view(F.normalize(torch.randn(2, 5), dim=1), torch.tensor([1, 2]), 0)
    step = Step(Clock(0, 10, 5), seed=0, batch=2)
    before = source.queue.vectors.clone()
    source(keys, keys, Match(0, 0), step)
    assert torch.equal(source.queue.vectors, before)
    source.update(keys, step)
    assert torch.equal(source.queue.vectors[:2], keys.vectors)
