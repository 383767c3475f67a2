"""The state of the process that a part could change by mistake: how to read it, and how to restore it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def read_global_state() -> dict[str, Any]:
    """The state of each thing by its name, comparable with ``==``."""
    return {name: read() for name, (read, _) in _STATE.items()}


@contextmanager
def restore_global_state() -> Iterator[None]:
    """Restore the state of the process at the end. Inside, torch computes in one thread: on small tensors several
    threads only wait for each other, which on a busy machine takes ten times as long."""
    before = read_global_state()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        for name, value in read_global_state().items():
            if value != before[name]:
                _STATE[name][1](before[name])


def _torch_generator() -> list[int]:
    return torch.get_rng_state().tolist()


def _numpy_generator() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return (name, np.asarray(keys).tolist(), *rest)


def _set_grad(on: bool) -> None:
    torch.set_grad_enabled(on)


def _set_environment(value: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(value)


_Access = tuple[Callable[[], Any], Callable[[Any], None]]
_STATE: dict[str, _Access] = {
    "torch's random generator": (
        _torch_generator,
        lambda state: torch.set_rng_state(torch.tensor(state, dtype=torch.uint8)),
    ),
    "Python's random generator": (random.getstate, random.setstate),
    "numpy's random generator": (_numpy_generator, np.random.set_state),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "grad mode": (torch.is_grad_enabled, _set_grad),
    "deterministic algorithms": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "the precision of float32 products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "the environment": (lambda: dict(os.environ), _set_environment),
    "the working folder": (os.getcwd, os.chdir),
}
