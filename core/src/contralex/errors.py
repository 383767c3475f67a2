"""The one exception that users see: a sentence that says what is wrong, where, and what to do."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

_LONGEST = 4000  # characters of a message
_LONGEST_NAME = 200  # characters of a name that others are compared with, which takes time


class ContralexError(Exception):
    """A mistake in what the user gave (a spec, a file, a folder, an environment). Shown without a traceback.

    ``on_every_process``: all processes of a run raise it alike, so one of them says it for all.

    >>> import contralex
    >>> try:
    ...     contralex.resolve("moco-v2", sets={"train.epoch": 5})
    ... except contralex.ContralexError as error:
    ...     print(error)
    train.epoch: there is no such field; did you mean epochs? (--set)
    """

    exit_code = 2
    on_every_process = False

    def __str__(self) -> str:
        """A name or value that somebody gave may be as long as a book. What mends a mistake stands at the end."""
        text = super().__str__()
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"


@contextmanager
def error_at(path: str) -> Iterator[None]:
    """Put the path in the spec, such as ``method.encoder``, before the sentence of a mistake that is found within."""
    try:
        yield
    except ContralexError as error:
        error.args = (f"{path}: {error}",)
        raise


def remedy(*words: object) -> str:
    """What mends a mistake, as the end of its sentence: a command, or ``--set`` and its value, on a line of its own and
    quoted for the shell. ``remedy("contralex", "train", "--out", folder)``, ``remedy("--set", "train.epochs=5")``."""
    import shlex

    return "\n  " + shlex.join(str(word) for word in words)


def command_to_resume(folder: object, *more: str) -> str:
    """The command that goes on with the run in ``folder``, as the end of a sentence."""
    return remedy("contralex", "train", "--out", folder, "--resume", *more)


def find_similar(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The ``most`` of the ``known`` names that are most like ``name``, the most similar first; none where none is."""
    import difflib

    return difflib.get_close_matches(name, known, n=most) if len(name) <= _LONGEST_NAME else []


def did_you_mean(names: Sequence[str]) -> str:
    """The question after a name that does not exist, with the ``names`` that may have been meant; empty for none."""
    return f"did you mean {' or '.join(names)}?" if names else ""
