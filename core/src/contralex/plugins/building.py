"""From a spec to its part: written once, for every kind.

A spec names its part, ``builds = ".loss:MyLoss"``, by a string, so that it imports no torch. The part takes plain
keyword arguments: the spec's fields, and whatever it asks by name of the build context. A part that needs another part
of a block, with weights of its own, asks for a function: ``fresh_backbone`` builds the field ``backbone`` once more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from contralex.lookup.slots import Encoder, KeyEncoder, NegativeSource
    from contralex.plugins.spec import Spec


def _cannot_load(path: str | Path) -> Encoder:
    raise TypeError(f"{path} cannot be loaded: this build context has no load_encoder")


@dataclass(frozen=True)
class BuildContext:
    """What a part may ask for when it is built: it names it as an argument of its own.

    ``dim``: the width of the vectors that are looked up. ``dataset_size``: the number of training samples.
    ``batch_size``: over all processes. ``key_views`` and ``query_views``: those of the matches, in order. ``encoder``:
    the query encoder. ``fresh_encoder()`` makes another one from the same spec, with weights of its own.
    ``key_encoder``: for negatives, targets and loss. ``labels`` (dataset_size,): the class of each training sample, -1
    where it has none, or None where the data have no labels at all. ``negatives``: for targets and loss, the negative
    source; its ``num_prototypes`` says how many prototypes it has. ``load_encoder(path)``: the query encoder of a run
    or checkpoint, in evaluation mode. ``sources``: the negative sources of the look-ups that are built already, by
    name.
    """

    dim: int
    dataset_size: int
    batch_size: int
    key_views: tuple[int, ...]
    encoder: Encoder
    fresh_encoder: Callable[[], Encoder]
    key_encoder: KeyEncoder | None = None
    labels: Tensor | None = None
    query_views: tuple[int, ...] = ()
    negatives: NegativeSource | None = None
    load_encoder: Callable[[str | Path], Encoder] = _cannot_load
    sources: Mapping[str, NegativeSource] = field(default_factory=dict)


_CONTEXT = tuple(each.name for each in fields(BuildContext))


def build(spec: Spec, context: BuildContext | None = None) -> Any:
    """The part that a spec names, made from its fields (blocks inside it are built first) and from what the part's
    signature asks of ``context``. Raises TypeError where the part asks for what neither has."""
    part = part_of(type(spec))
    given = {name: _built(getattr(spec, name), context) for name in type(spec).model_fields if name != "kind"}
    return part(**given, **_asked(part, given, spec, context))


def part_of(spec: type[Spec]) -> Callable[..., Any]:
    """The class or function that a spec's ``builds`` names."""
    module, _, name = spec.builds.rpartition(":")
    if not name:
        raise TypeError(
            f'{spec.__name__} names no part; write builds = ".module:Part" in it, or builds = ":Part" for a part in '
            "the same file"
        )
    package = spec.__module__.rpartition(".")[0]
    found = import_module(module, package) if module else inspect.getmodule(spec)
    part: Callable[..., Any] | None = getattr(found, name, None)
    if part is None:
        raise TypeError(f"{spec.__name__} builds {spec.builds}, and {module or spec.__module__} has no {name}")
    return part


def _built(value: Any, context: BuildContext | None) -> Any:
    """A block that names a part as that part; any other value as it is."""
    from contralex.plugins.spec import Spec

    if isinstance(value, Spec):
        return value.build(context) if value.builds else value
    if isinstance(value, Mapping):
        return {name: _built(item, context) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return type(value)(_built(item, context) for item in value)  # type: ignore[call-arg]
    return value


def _asked(
    part: Callable[..., Any], given: Mapping[str, Any], spec: Spec, context: BuildContext | None
) -> dict[str, Any]:
    from contralex.plugins.spec import Spec

    blocks = {f"fresh_{name}": block for name, block in spec if isinstance(block, Spec)}
    asked = {}
    for name, parameter in inspect.signature(part).parameters.items():
        if name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in _CONTEXT and context is not None:
            asked[name] = getattr(context, name)
        elif name in blocks:
            asked[name] = partial(blocks[name].build, context)
        elif parameter.default is parameter.empty:
            raise TypeError(
                f"{spec.builds} asks for {name}, which is no field of {type(spec).__name__}"
                + ("" if name in _CONTEXT else f" and nothing of the build context ({', '.join(_CONTEXT)})")
                + (" and needs a build context" if name in _CONTEXT else "")
            )
    return asked
