"""Checks on a plugin as it is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

from contralex.plugins.registry import Plugin
from contralex.testing.check_errors import Failed, NotApplicable

_HEAVY = ("torch", "torchvision", "accelerate")


def imports_no_torch(plugin: Plugin) -> None:
    """The entry module imports no torch, so that every command stays fast with the plugin installed.

    Specs stand in it, or in a module that it imports. A spec names its part by a string, ``builds``; the part's module
    imports torch.
    """
    assert plugin.module is not None
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; import {plugin.module.__name__}; "
        f"print(*(name for name in {_HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"importing {plugin.module.__name__} alone fails: {done.stderr.strip().splitlines()[-1]}")
    if done.stdout.strip():
        raise Failed(
            f"importing {plugin.module.__name__} imports {' and '.join(done.stdout.split())}; "
            'put the part into another module, and name it in the spec: builds = ".module:Part"'
        )


def states_its_bounds(plugin: Plugin) -> None:
    """The distribution says which versions of the core it works with: ``contralex>=X.Y,<X.Z``."""
    from packaging.requirements import Requirement

    if plugin.name == "contralex":
        raise NotApplicable("this is the core itself")
    required = [Requirement(line) for line in metadata.requires(plugin.name) or []]
    bounds = [one.specifier for one in required if one.name == "contralex" and not one.marker]
    if not bounds:
        raise Failed("its dependencies do not name contralex")
    operators = {part.operator for part in bounds[0]}
    if not operators & {">=", ">", "==", "~="} or not operators & {"<", "<=", "==", "~="}:
        raise Failed(f"its dependency contralex{bounds[0]} needs a lower and an upper bound")
