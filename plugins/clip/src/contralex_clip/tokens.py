"""From a caption to token ids."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from contralex.plugin import ContralexError

if TYPE_CHECKING:
    from contralex_clip import spec as specs


class Tokens:
    """A caption's ids between a mark for its beginning and one for its end, then zeros up to ``context``.

    The end's id is the highest of the vocabulary, and that before it the beginning's. A caption that is too long is
    cut, and keeps its end.
    """

    def __init__(self, spec: specs.Tokenizer, context: int) -> None:
        self.kind, self.vocab, self.context = spec.kind, spec.vocab, context
        self._ids("")  # so that a package that is missing shows before any data are read

    def __call__(self, text: str) -> Tensor:
        """(context,) int64."""
        ids = self._ids(text)[: self.context - 2]
        row = torch.zeros(self.context, dtype=torch.long)
        row[: len(ids) + 2] = torch.tensor([self.vocab - 2, *ids, self.vocab - 1])
        return row

    def _ids(self, text: str) -> list[int]:
        if self.kind == "bytes":
            return list(" ".join(text.lower().split()).encode())
        ids: list[int] = _bpe().encode(text)
        return ids


@lru_cache(maxsize=1)  # once in each process that makes views
def _bpe() -> Any:
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise ContralexError(
            "method.views.tokenizer of kind clip_bpe needs the package open_clip_torch, which is not installed; run: "
            "pip install 'contralex-clip[bpe]', or use the tokenizer bytes."
        ) from error
    return SimpleTokenizer()
