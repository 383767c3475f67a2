"""A query's own key is found by find_in, and a query without one gets the last row."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "answers_with_its_own_key"
REASON = r"answered with another row at .*last_row_for_absent.py:\d+; keys.select_matching"


class Wrong(Spec):
    """The sample's own key, as a vector to regress on."""

    kind: Literal["last_row_for_absent"] = "last_row_for_absent"
    builds = ":make_part"
    gives = frozenset({"vectors"})
    source = "BYOL, arXiv:2006.07733, Eq. 2"


def make_part() -> Any:
    from contralex.plugin import TargetGenerator, Targets

    class Part(TargetGenerator):
        def forward(self, queries: Any, keys: Any, dictionary: Any, match: Any, step: Any) -> Any:
            wanted = keys.select_view(match.key)
            return Targets(vectors=wanted.vectors[queries.find_in(wanted, same_view=False)])

    return Part()


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [Wrong]
