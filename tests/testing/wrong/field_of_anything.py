"""A field is validated by a bare function, so that its JSON Schema says nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator

from contralex.plugin import Spec, hookimpl

FAILS = "json_schema"
REASON = r"its JSON Schema says nothing of size"


class Wrong(Spec):
    """Two minus two cosines."""

    kind: Literal["field_of_anything"] = "field_of_anything"
    builds = ":make_part"
    size: Annotated[int, PlainValidator(int)] = 4
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part(size: Any) -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            return (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]
