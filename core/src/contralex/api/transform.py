"""How an image becomes the input of a run's encoder, exactly as in evaluation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contralex.api.arguments import checked
from contralex.api.settings import PathLike
from contralex.kinds.datasets.limits import MAX_PIXELS
from contralex.recipes.code_files import permission
from contralex.training.checkpoints.read import open_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from contralex.data.views import Views


class Transform:
    """An image of PIL, or the path of one, to (3, H, W) float32. It prints its steps.

    A path is read as data sets read it: upright, as RGB, what is transparent white.

    >>> import contralex
    >>> contralex.open("runs/my-run").transform
    Transform
      Resize(size=[32, 32], interpolation=InterpolationMode.BILINEAR, antialias=True)
      PILToTensor()
      ToDtype(scale=True)
      Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], inplace=False)
    """

    def __init__(self, views: Views, max_pixels: int) -> None:
        self._views = views
        self._max_pixels = max_pixels

    def __call__(self, image: Any) -> Tensor:
        from PIL import Image

        from contralex.data import images

        if isinstance(image, str | os.PathLike):
            image = images.read(os.fspath(image), self._max_pixels)
        elif isinstance(image, Image.Image):
            image = images.to_rgb(image)
        return self._views.plain(image)

    def __repr__(self) -> str:
        return "\n".join(["Transform", *(f"  {step}" for step in self._views.plain_steps())])


@checked
def load_transform(run: PathLike, *, allow_code: bool = False) -> Transform:
    """What turns an image into the input of a run's encoder and backbone, exactly as evaluation does it.

    >>> import contralex
    >>> transform = contralex.load_transform("runs/my-run")
    >>> transform("photos/cat/1.png").shape
    torch.Size([3, 32, 32])
    """
    with permission(allow_code):
        spec = open_checkpoint(Path(run), ()).resolved().run
        return Transform(spec.method.views.build(), spec.data.model_dump().get("max_pixels", MAX_PIXELS))
