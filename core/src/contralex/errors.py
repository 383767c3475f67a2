"""The one exception that users see: a sentence that says what is wrong, where, and what to do."""


class ContralexError(Exception):
    """A mistake in what the user gave (a spec, a file, a folder, an environment). Shown without a traceback."""
