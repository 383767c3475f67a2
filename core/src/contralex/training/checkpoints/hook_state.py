"""What life-cycle hooks keep, as a checkpoint holds it: values of JSON in ``state.json``, and tensors beside the
optimiser's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

PREFIX = "hooks/"  # of the names of their tensors: hooks/<plugin>/<name>


def split_state(state: Mapping[str, Any], plugin: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The values and the tensors of one plugin's state. Raises ValueError or TypeError for what is neither."""
    tensors = {f"{PREFIX}{plugin}/{name}": value.detach() for name, value in state.items() if isinstance(value, Tensor)}
    values = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    odd = next((name for name in state if not isinstance(name, str) or "/" in name), None)
    if odd is not None:
        raise TypeError(f"{odd!r} is no name: a text without a slash is expected")
    read_again: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    if read_again != values:
        raise TypeError("JSON would change its values; keep texts as keys, and lists in place of tuples")
    return read_again, tensors


def join_states(values: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """The state of each plugin."""
    states = {plugin: dict(kept) for plugin, kept in values.items()}
    for key, tensor in tensors.items():
        plugin, name = key.removeprefix(PREFIX).rsplit("/", 1)
        states.setdefault(plugin, {})[name] = tensor
    return states
