"""How large an image may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MAX_PIXELS = 178_956_970
"""Above it PIL refuses a file, as one that may have been made to fill the memory."""

MaxPixels = Annotated[int, Field(gt=0, le=2**53, description="pixels")]
"""A field of data: an image of more pixels is left out."""
