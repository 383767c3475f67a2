"""From a caption to token ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from contralex.plugin import ContralexError
from contralex_clip.spec import BPE_VOCAB, BYTES_VOCAB


class Tokenizer(ABC):
    """A caption to token ids, without its ends. ``vocab``: how many ids there are, with those of the two ends."""

    vocab: int

    @abstractmethod
    def encode(self, text: str) -> list[int]: ...


class ByteTokenizer(Tokenizer):
    """A token for each byte of the caption, in lower case, with single spaces."""

    vocab = BYTES_VOCAB

    def encode(self, text: str) -> list[int]:
        return list(" ".join(text.lower().split()).encode())


class ClipTokenizer(Tokenizer):
    """CLIP's byte-pair encoding, from the package open_clip_torch."""

    vocab = BPE_VOCAB

    def __init__(self) -> None:
        _bpe()  # so that a package that is missing shows before any data are read

    def encode(self, text: str) -> list[int]:
        ids: list[int] = _bpe().encode(text)
        return ids


class Tokens:
    """A caption's ids between a mark for its beginning and one for its end, then zeros up to ``context``.

    The end's id is the highest of the vocabulary, and that before it the beginning's. A caption that is too long is
    cut, and keeps its end.
    """

    def __init__(self, tokenizer: Tokenizer, context: int = 77) -> None:
        self.tokenizer, self.context = tokenizer, context

    def __call__(self, text: str) -> Tensor:
        """(context,) int64."""
        ids = self.tokenizer.encode(text)[: self.context - 2]
        row = torch.zeros(self.context, dtype=torch.long)
        row[: len(ids) + 2] = torch.tensor([self.tokenizer.vocab - 2, *ids, self.tokenizer.vocab - 1])
        return row


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
