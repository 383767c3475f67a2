"""What a user's call gets wrong in its arguments, as a sentence."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from contralex.errors import ContralexError, did_you_mean, find_similar

P = ParamSpec("P")
R = TypeVar("R")


class WrongArgument(ContralexError, TypeError):
    """A function was called with arguments that it does not have, or without one that it needs."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, whose wrong keywords are named beside the nearest right one."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*values: P.args, **named: P.kwargs) -> R:
        unknown = next((name for name in named if name not in signature.parameters), None)
        if unknown is not None:
            way = did_you_mean(find_similar(unknown, signature.parameters))
            way = way or f"its arguments are {', '.join(signature.parameters)}"
            raise WrongArgument(f"{function.__name__} has no argument {unknown}; {way}")
        try:
            signature.bind(*values, **named)
        except TypeError as error:
            raise WrongArgument(f"{function.__name__}: {error}") from None
        return function(*values, **named)

    return call
