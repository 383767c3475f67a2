"""Before a run starts: do its views normalise pixels as the published weights that it begins with were trained?"""

from __future__ import annotations

import json

from contralex.errors import remedy
from contralex.kinds.views.augment import Normalize
from contralex.plugins.spec import Spec
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.walk import walk

_CLOSE = 1e-3  # recipes round the numbers

Pixels = tuple[tuple[float, ...], tuple[float, ...]]


def warnings(spec: RunSpec) -> list[str]:
    """A sentence for each backbone whose weights were trained with another mean or deviation, with what mends it."""
    if spec.init is not None:  # other weights take the place of the published ones
        return []
    return [
        f"{path} begins with published weights, which were trained on pixels of mean {list(trained[0])} and deviation "
        f"{list(trained[1])}, and the views of this run are normalised in another way. Try:" + "".join(mended)
        for path, value in walk(spec.method, "method")
        if isinstance(value, Spec)
        and (trained := value.published_pixels()) is not None
        and (mended := _mend(spec.method.views, trained))
    ]


def _mend(views: Spec, trained: Pixels) -> list[str]:
    """The settings of those views that are normalised by other numbers."""
    wanted = json.dumps({"mean": trained[0], "std": trained[1]})
    return [
        remedy("--set", f"{path}={wanted}")
        for path, value in walk(views, "method.views")
        if path.endswith(".normalize") and (value is None or isinstance(value, Normalize)) and _differs(value, trained)
    ]


def _differs(normalize: Normalize | None, trained: Pixels) -> bool:
    mean, std = ((0.0,) * 3, (1.0,) * 3) if normalize is None else (normalize.mean, normalize.std)
    pairs = zip((*mean, *std), (*trained[0], *trained[1]), strict=True)
    return any(abs(own - other) > _CLOSE for own, other in pairs)
