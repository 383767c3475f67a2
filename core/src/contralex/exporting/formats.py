"""The formats of an export, each with the function that writes and opens it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from contralex.errors import ContralexError, did_you_mean, find_similar

if TYPE_CHECKING:
    from contralex.exporting.original import Comparison, Original


@dataclass(frozen=True)
class Written:
    """What a format has written into a folder, and how it is opened without contralex.

    ``loading``: lines of Python that end in ``features``, from images (B, C, H, W); ``{path}`` is where it lies.
    ``library``: for the hub. ``needs``: what is to be installed. ``note``: a sentence, or nothing.
    """

    comparison: Comparison
    loading: str
    library: str
    needs: str
    note: str = ""


@dataclass(frozen=True)
class Format:
    """``suffixes``: of the file that it writes, the usual one first; none: it writes a folder. ``file``: the file's
    name in a folder. ``module``: writes it, by ``write(original, folder, file)``."""

    name: str
    module: str
    suffixes: tuple[str, ...] = ()
    summary: str = ""

    def write(self, original: Original, folder: Path, file: str) -> Written:
        """Write into ``folder``, open what was written, and compare it with the encoder."""
        function: Callable[[Original, Path, str], Written] = import_module(self.module).write
        return function(original, folder, file)


_ALL = (
    Format("timm", "contralex.exporting.timm_folder", summary="a folder that timm opens, and transformers by it"),
    Format("torchvision", "contralex.exporting.torchvision_file", (".safetensors", ".pth"), "a state dict"),
    Format("transformers", "contralex.exporting.transformers_folder", summary="a folder for AutoModel"),
    Format("onnx", "contralex.exporting.onnx_file", (".onnx",), "a file for ONNX Runtime and others"),
    Format("torch-export", "contralex.exporting.program_file", (".pt2",), "a file of torch.export"),
)
FORMATS = {each.name: each for each in _ALL}


def find_format(name: str) -> Format:
    if name not in FORMATS:
        way = did_you_mean(find_similar(name, FORMATS)) or f"the formats are {', '.join(FORMATS)}"
        raise ContralexError(f"--to {name}: there is no such format; {way}")
    return FORMATS[name]
