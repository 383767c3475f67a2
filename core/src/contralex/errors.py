"""The one exception that users see: a sentence that says what is wrong, where, and what to do."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 4000  # characters of a message


class ContralexError(Exception):
    """A mistake in what the user gave (a spec, a file, a folder, an environment). Shown without a traceback.

    ``on_every_process``: all processes of a run raise it alike, so one of them says it for all.
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
    return "\n  " + shlex.join(str(word) for word in words)


def command_to_resume(folder: object, *more: str) -> str:
    """The command that goes on with the run in ``folder``, as the end of a sentence."""
    return remedy("contralex", "train", "--out", folder, "--resume", *more)
