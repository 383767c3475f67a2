"""An encoder for each view, and what it stands on: backbones of other channels, shared chance, a normaliser a view."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.data.base import Split
from contralex.data.loading import ViewDataset
from contralex.kinds.backbones.specs import TimmBackboneSpec, TorchvisionBackboneSpec
from contralex.kinds.encoders.specs import TowersSpec
from contralex.kinds.encoders.towers import TowersEncoder
from contralex.lookup.clock import Clock
from contralex.plugin import NCE, ContralexError, Dictionary, Rows, Step, Targets, Views

STEP = Step(Clock(0, 10, 5), seed=0, batch=4)


def tower(channels: int, width: int = 5, **changes: Any) -> dict[str, Any]:
    backbone = {"kind": "conv", "widths": (4 + channels,), "strides": (2,), "channels": channels}
    return {"kind": "image", "backbone": backbone, "projector": [{"width": width}], **changes}


def built(**fields: Any) -> Any:
    torch.manual_seed(0)
    return TowersSpec.model_validate(fields).build().eval()


def lab() -> Any:
    return built(towers={"l": tower(1), "ab": tower(2)}, features="concatenated", channels=(1, 2))


# The encoder


def test_each_view_goes_through_its_own_encoder_on_both_sides() -> None:
    predictor = [{"width": 5}]
    encoder = built(towers={"l": tower(1, predictor=predictor), "ab": tower(2, normalize=False)}, features="first")
    views = {1: torch.rand(3, 2, 8, 8), 0: torch.rand(3, 1, 8, 8)}
    embedded = encoder(views)
    queries, keys = encoder.queries(embedded), encoder.keys(embedded)
    one, other = encoder.towers
    first = one.projector(one.backbone(views[0]))
    torch.testing.assert_close(keys[0][0], F.normalize(first, dim=1))
    torch.testing.assert_close(queries[0][0], F.normalize(one.predictor(first), dim=1))
    torch.testing.assert_close(keys[1][0], other.projector(other.backbone(views[1])))  # neither length nor predictor
    torch.testing.assert_close(queries[1][0], keys[1][0])


def test_concatenated_features_are_of_each_encoders_own_channels() -> None:
    encoder, image = lab(), torch.rand(3, 3, 8, 8)
    parts = [encoder.towers[0].backbone(image[:, :1]), encoder.towers[1].backbone(image[:, 1:])]
    torch.testing.assert_close(encoder.features(image), torch.cat(parts, dim=1))
    torch.testing.assert_close(encoder.backbone(image), torch.cat(parts, dim=1))
    vectors = [F.normalize(t.projector(part), dim=1) for t, part in zip(encoder.towers, parts, strict=True)]
    torch.testing.assert_close(encoder.embedding(image), torch.cat(vectors, dim=1))


def test_features_of_the_first_encoder_alone() -> None:
    encoder, image = built(towers={"image": tower(3), "other": tower(2)}, features="first"), torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(encoder.features(image), encoder.towers[0].backbone(image))
    assert encoder.backbone is encoder.towers[0].backbone
    torch.testing.assert_close(encoder.embedding(image), encoder.towers[0].embedding(image))


def test_a_checkpoint_holds_each_weight_once() -> None:
    names = list(lab().state_dict())
    assert names and all(name.startswith("towers.") for name in names)


def test_encoders_of_different_widths_are_refused() -> None:
    with pytest.raises(ContralexError, match=r"different widths \(l gives 5, ab gives 6\)"):
        built(towers={"l": tower(1), "ab": tower(2, width=6)}, features="first")


def test_a_view_without_an_encoder_is_refused() -> None:
    with pytest.raises(ContralexError, match="has 2 encoders, and there is a view 2"):
        lab()({2: torch.rand(2, 1, 8, 8)})


def test_channels_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ContralexError, match=r"take 1 \+ 2 channels, and evaluation sees images of 4"):
        lab().features(torch.rand(2, 4, 8, 8))
    for features, channels in (("concatenated", ()), ("concatenated", (3,)), ("first", (1, 2))):
        with pytest.raises(ValidationError, match="towers need"):
            TowersSpec.model_validate(
                {"towers": {"l": tower(1), "ab": tower(2)}, "features": features, "channels": channels}
            )


def test_one_encoder_is_refused() -> None:
    with pytest.raises(ValidationError, match="for each of at least two views"):
        TowersSpec.model_validate({"towers": {"image": tower(3)}, "features": "first"})


def test_what_all_encoders_give_is_given() -> None:
    spec = TowersSpec.model_validate({"towers": {"l": tower(1), "ab": tower(2, normalize=False)}, "features": "first"})
    assert spec.offers() == {"one query a view", "an encoder a view"}
    assert spec.requires() == [("views", frozenset({"images"}))]


# Backbones


@pytest.mark.parametrize(
    ("fields", "conv", "channels"),
    [
        ({"name": "resnet18", "channels": 1}, "conv1", 1),
        ({"name": "resnet18", "channels": 2, "stem": "small"}, "conv1", 2),
        ({"name": "alexnet", "channels": 2}, "features.0", 2),
    ],
)
def test_torchvision_models_of_other_channels(fields: dict[str, Any], conv: str, channels: int) -> None:
    model, width = TorchvisionBackboneSpec(**fields).build()
    first: Any = model.get_submodule(conv)
    assert first.in_channels == channels
    assert model.eval()(torch.rand(2, channels, 64, 64)).shape == (2, width)


def test_the_first_convolution_of_other_channels_starts_as_the_family_does() -> None:
    torch.manual_seed(0)
    first: Any = TorchvisionBackboneSpec(name="resnet18", channels=2).build()[0]
    assert first.conv1.bias is None
    assert float(first.conv1.weight.detach().std()) == pytest.approx(
        (2 / (64 * 49)) ** 0.5, rel=0.05
    )  # N(0, 2/fan_out)


def test_a_model_that_begins_otherwise_is_refused() -> None:
    with pytest.raises(ContralexError, match="width is for ResNets, and alexnet is none"):
        TorchvisionBackboneSpec(name="alexnet", width=0.5).build()
    with pytest.raises(ContralexError, match="width is for plain ResNets, and wide_resnet50_2"):
        TorchvisionBackboneSpec(name="wide_resnet50_2", width=0.5).build()


@pytest.mark.parametrize(("name", "width"), [("resnet18", 2.0), ("resnet50", 0.5)])
def test_a_resnet_of_another_width(name: str, width: float) -> None:
    plain, features = TorchvisionBackboneSpec(name=name).build()
    scaled, others = TorchvisionBackboneSpec(name=name, width=width, zero_init_residual=True).build()
    assert others == features * width
    for (key, one), (same, other) in zip(plain.named_modules(), scaled.named_modules(), strict=True):
        assert key == same and type(one) is type(other)
        if isinstance(one, nn.Conv2d) and isinstance(other, nn.Conv2d):
            assert other.out_channels == one.out_channels * width
            assert other.in_channels == (3 if key == "conv1" else one.in_channels * width)
            assert (one.kernel_size, one.stride, one.padding) == (other.kernel_size, other.stride, other.padding)
            spread = (2 / (other.out_channels * other.kernel_size[0] ** 2)) ** 0.5
            assert float(other.weight.detach().std()) == pytest.approx(spread, rel=0.1)
    branch: Any = scaled.get_submodule("layer1.0.bn2" if name == "resnet18" else "layer1.0.bn3")
    assert not branch.weight.any()


def test_timm_models_of_other_channels() -> None:
    pytest.importorskip("timm")
    model, width = TimmBackboneSpec(name="resnet10t", channels=2).build()
    assert model.eval()(torch.rand(2, 2, 64, 64)).shape == (2, width)


# Views that see the same chance


class Numbers(Split):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return index


class Drawn(Views):
    count = 3

    def __init__(self, draws: list[int] | None) -> None:
        self.draws = draws

    def draw(self, view: int) -> int:
        return super().draw(view) if self.draws is None else self.draws[view]

    def make(self, item: Any, view: int) -> Tensor:
        return torch.rand(4)

    def plain(self, item: Any) -> Tensor:
        return torch.zeros(4)


def test_views_that_return_one_number_see_the_same_chance() -> None:
    alone, shared = (ViewDataset(Numbers(), Drawn(draws), 3, 4)[1, 5]["views"] for draws in (None, [0, 0, 2]))
    assert torch.equal(shared[0], shared[1]) and not torch.equal(shared[0], shared[2])
    assert len({tuple(view.tolist()) for view in alone.values()}) == 3
    assert torch.equal(shared[0], alone[0]) and torch.equal(shared[2], alone[2])


# NCE with a normaliser for each view


def nce(normalizer: Literal["one", "each_view"]) -> NCE:
    return NCE(temperature=0.3, normalizer=normalizer, query_views=(2, 0))


def asked(loss: NCE, view: int, vectors: Tensor, own: Tensor) -> Tensor:
    queries = Rows.from_view(vectors, torch.arange(4), view)
    targets = Targets(index=torch.zeros(4, dtype=torch.long))
    found: Tensor = loss(queries, Dictionary(own=own, dataset_size=20), targets, STEP)
    return found


def oracle(vectors: Tensor, own: Tensor, z: Tensor) -> Tensor:
    total, noise = torch.zeros(()), (own.shape[1] - 1) / 20
    for query, entries in zip(vectors, own, strict=True):
        p = [torch.exp(query @ entry / 0.3) / z for entry in entries]
        total = total - torch.log(p[0] / (p[0] + noise + 1e-7))
        total = total - sum(torch.log(noise / (each + noise + 1e-7)) for each in p[1:])
    return total / 4


def test_nce_keeps_a_normaliser_for_each_view_that_asks() -> None:
    loss = nce("each_view")
    assert loss.z.tolist() == [-1, -1]
    sides = [(view, F.normalize(torch.randn(4, 5), dim=1).requires_grad_(), torch.randn(4, 7, 5)) for view in (0, 2)]
    total = torch.stack([asked(loss, *side) for side in sides]).sum()  # both are set before the one backward
    z = [torch.exp(torch.einsum("nd,npd->np", q, own) / 0.3).mean().detach() * 20 for _, q, own in sides]
    torch.testing.assert_close(loss.z, torch.stack([z[1], z[0]]))  # in the order of the query views
    expected = torch.stack([oracle(q, own, each) for (_, q, own), each in zip(sides, z, strict=True)]).sum()
    torch.testing.assert_close(total, expected)
    mine = torch.autograd.grad(total, [q for _, q, _ in sides])
    theirs = torch.autograd.grad(expected, [q for _, q, _ in sides])
    torch.testing.assert_close(mine, theirs)
    asked(loss, 0, torch.randn(4, 5), torch.randn(4, 7, 5))
    torch.testing.assert_close(loss.z, torch.stack([z[1], z[0]]))


def test_one_normaliser_is_a_single_number_as_it_was() -> None:
    loss = nce("one")
    assert loss.z.shape == ()
    asked(loss, 2, torch.randn(4, 5), torch.randn(4, 7, 5))
    set_by_first = loss.z.clone()
    assert set_by_first > 0
    asked(loss, 0, torch.randn(4, 5), torch.randn(4, 7, 5))
    assert torch.equal(loss.z, set_by_first)


def test_towers_is_what_the_kind_builds() -> None:
    assert isinstance(lab(), TowersEncoder)


def test_scores_that_would_overflow_leave_nce_finite() -> None:
    loss, vectors = nce("one"), (1e4 * torch.randn(4, 5)).requires_grad_()
    found = asked(loss, 0, vectors, torch.randn(4, 7, 5))
    found.backward()
    assert found.isfinite() and loss.z.isfinite()
    assert vectors.grad is not None and vectors.grad.isfinite().all()
