"""MAE's parts: masks, what the encoder may see, keys, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.data.loading import ViewDataset
from contralex.plugin import ContralexError
from contralex.recipes.layers import resolve
from tests.noise import noise
from tests.parity.test_mae import HIDDEN, PATCH, SIDE, SIZE, mae, masked, pixels
from tests.parity.test_methods import SAMPLE, step

pytest.importorskip("timm")


def spec(**changes: Any) -> Any:
    from contralex_mae.spec import MaskedViewsSpec

    return MaskedViewsSpec.model_validate({**MaskedViewsSpec.example, **changes})


@pytest.mark.parametrize(("share", "visible"), [(0.75, 49), (0.6, 78), (0.9, 19)])
def test_as_many_are_visible_as_in_the_official_code(share: float, visible: int) -> None:
    augment = {"order": ("crop",), "crop": {"size": 224, "scale": (0.2, 1.0)}}
    found = spec(augment=augment, patch=16, share=share)
    assert found.patches - found.hidden == visible


def test_a_view_is_the_crop_and_its_mask() -> None:
    views = spec().build()
    image = noise((24, 24), 60).convert("RGB")
    torch.manual_seed(0)
    found = views.make(image, 0)
    torch.manual_seed(0)
    assert torch.equal(found[:3], views.crops.make(image, 0))
    patch = found[3].unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).flatten(2)  # (SIDE, SIDE, PATCH²)
    assert bool((patch == patch[..., :1]).all())  # a patch is hidden whole
    assert int(patch[..., 0].sum()) == HIDDEN
    assert views.plain(image).shape == (3, SIZE, SIZE)


def test_the_mask_is_of_the_sample_and_the_epoch() -> None:
    run = resolve("mae", preset="digits").run
    split, views = run.data.build().train(), run.method.views.build()  # type: ignore[attr-defined]
    data = ViewDataset(split, views, seed=0, batch=8)
    masks = {at: data[at]["views"][0][3] for at in [(0, 1), (0, 2), (1, 1)]}
    assert torch.equal(masks[0, 1], data[0, 1]["views"][0][3])
    assert not torch.equal(masks[0, 1], masks[0, 2])
    assert not torch.equal(masks[0, 1], masks[1, 1])


def repainted(images: Tensor, hidden: list[list[int]], *, where: str) -> Tensor:
    """The same masks on images of which the hidden, or the visible, patches are others."""
    mask = images[:, 3:]
    other = torch.cat([torch.rand(images[:, :3].shape, generator=torch.Generator().manual_seed(9)), mask], dim=1)
    take = mask.bool() if where == "hidden" else ~mask.bool()
    return torch.where(take, other, images)


def test_nothing_hidden_leaks_into_what_is_encoded_or_predicted() -> None:
    model = mae()
    images, hidden = masked()
    behind, seen = (repainted(images, hidden, where=where) for where in ("hidden", "visible"))
    encoder = model.encoder
    assert torch.equal(encoder.visible(images), encoder.visible(behind))
    assert not torch.allclose(encoder.visible(images), encoder.visible(seen))
    before, keys = model.encode({0: images}, SAMPLE, step())
    after, other = model.encode({0: behind}, SAMPLE, step())
    assert torch.equal(before.vectors, after.vectors)
    assert not torch.allclose(keys.vectors, other.vectors)  # but what should be found is what stands there


def test_the_encoder_works_on_the_visible_tokens_alone() -> None:
    model = mae()
    images, _ = masked()
    lengths: list[int] = []
    hook = model.encoder.backbone.blocks[0].register_forward_hook(lambda part, given, out: lengths.append(out.shape[1]))
    model.encoder({0: images})
    hook.remove()
    assert lengths == [1 + SIDE**2 - HIDDEN]


def test_queries_ask_for_the_hidden_places_and_keys_are_pixels() -> None:
    model = mae("method.key_encoder.normalize=false")
    images, hidden = masked()
    queries, keys = model.encode({0: images}, SAMPLE, step())
    assert queries.position.view(-1, HIDDEN).tolist() == hidden
    places = [(image, place) for image in images for place in range(SIDE**2)]
    torch.testing.assert_close(keys.vectors, torch.stack([pixels(image, place) for image, place in places]))
    assert not keys.vectors.requires_grad


def test_a_patch_of_one_colour_has_a_finite_key_and_gradient() -> None:
    model = mae()
    images, _ = masked()
    images[:, :3] = 0.5
    found = model({0: images}, SAMPLE, step())
    found.loss.backward()
    assert found.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_features_are_of_the_whole_image() -> None:
    model = mae().eval()
    images, _ = masked()
    features = model.encoder.features(images[:, :3])
    vit = model.encoder.backbone
    first = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(images), -1, -1)
    everywhere = vit.patch_embed(images[:, :3]) + vit.pos_embed[:, 1:]
    tokens = vit.norm(vit.blocks(torch.cat([first, everywhere], dim=1)))
    expected = tokens[:, 1:].mean(dim=1) if vit.global_pool == "avg" else tokens[:, 0]
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_the_recipe_decays_tokens_and_weights_but_no_bias_or_norm() -> None:
    from contralex.training import optimizers

    run = resolve("mae", preset="digits").run
    model = mae()
    optimizer = optimizers.build(run.train.optimizer, model)
    optimizers.set_rates(optimizer, run.train.optimizer, step().clock, 8)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert decay[id(parameter)] == (0 if parameter.dim() == 1 else 0.05), name
    assert id(model.encoder.backbone.pos_embed) not in decay


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch": 5}, "does not divide"),
        ({"share": 0.01, "patch": 16}, "some must be hidden"),
    ],
)
def test_views_that_cannot_be_are_told(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        spec(**changes)


def test_views_that_do_not_fit_the_encoder_are_told() -> None:
    model = mae()
    images, _ = masked()
    for wrong, sentence in [
        (images[..., :12, :12], "image_size is 16"),
        (torch.cat([images[:, :3], images[:, 3:].roll(1, dims=3)], 1), "hides patches of another size"),
        (torch.cat([images[:, :3], torch.zeros_like(images[:, 3:])], 1), "nothing can be predicted"),
    ]:
        with pytest.raises(ContralexError, match=sentence):
            model({0: wrong}, SAMPLE, step())


def test_keys_that_are_patches_need_an_encoder_that_predicts_them() -> None:
    with pytest.raises(ContralexError, match=r"method\.key_encoder \(patches\) needs .*predicted patches"):
        resolve("simclr-v1", preset="digits", sets=["method.key_encoder=patches"])
