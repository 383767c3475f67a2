"""The tensors of a checkpoint that somebody published, by name. Nothing of the file is run."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from contralex.compat import plain_globals
from contralex.errors import ContralexError

_WRAPPERS = ("module.", "_orig_mod.")  # what torch's DistributedDataParallel and compile put before names
_DEPTH = 16  # dicts within dicts


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file of safetensors or of ``torch.save``, on the CPU. Dicts within dicts are joined by ``/``.

    A pickle is opened with ``weights_only``, which builds tensors and plain containers and nothing else.
    """
    if not path.is_file():
        raise ContralexError(f"{path} is no file; give a published checkpoint (.pth, .pt, .tar, .safetensors)")
    value = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    found = dict(_tensors(value, "", 0))
    if not found:
        raise ContralexError(f"{path} holds no tensors by name, so there is nothing to read from it")
    return found


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ContralexError(f"{path} cannot be read as safetensors: {error}") from None


def _pickle(path: Path) -> Any:
    if _is_program(path):
        raise ContralexError(
            f"{path} is a TorchScript archive, which is a program and not weights alone, so it is not opened; save its "
            "tensors where you trust it: safetensors.torch.save_file(torch.jit.load(FILE).state_dict(), ...)"
        )
    logging.getLogger("contralex").warning(
        "%s is a pickle, a kind of file that can hold code. It is read with torch's weights_only, which makes tensors "
        "and plain containers alone. Take files from sources that you trust, and safetensors where there are any.",
        path,
    )
    try:
        with plain_globals():
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, AttributeError, UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise ContralexError(
            f"{path} cannot be read by torch with weights_only, so nothing of it was opened: {reason:.300}"
        ) from None


def _is_program(path: Path) -> bool:
    """torch.jit.save writes an archive with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())


def _tensors(value: Any, path: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if path and value.layout == torch.strided and not value.is_quantized:
            yield path, value.detach()
        return
    if depth >= _DEPTH:
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        name = _unwrapped(str(key))
        yield from _tensors(inner, f"{path}/{name}" if path else name, depth + 1)


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name
