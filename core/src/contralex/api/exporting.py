"""An encoder for other libraries, verified before it is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.settings import PathLike, path_text
from contralex.files import expand_user
from contralex.recipes.code_files import permission

ExportFormat = Literal["timm", "torchvision", "transformers", "onnx", "torch-export"]


@dataclass(frozen=True, repr=False)
class Export:
    """What :func:`contralex.export` has written. It prints as a few lines.

    ``path``: the file or folder. ``difference``: the largest of a feature from the encoder's, of features up to
    ``largest``, in float32; from ``bound`` on nothing is written. ``loading``: lines of Python that open it without
    contralex. ``transform``: what is done to an image before, in numbers where other libraries can do it, and as
    ``steps``.

    >>> import contralex
    >>> made = contralex.open("runs/my-run").export("torch-export", "encoder.pt2")
    >>> made.path, made.difference < made.bound
    (PosixPath('encoder.pt2'), True)
    """

    to: str
    path: Path
    difference: float
    largest: float
    bound: float
    loading: str
    transform: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}

    def __repr__(self) -> str:
        compared = f"largest difference from the encoder {self.difference:.1e}, of features up to {self.largest:.3g}"
        lines = [f"{self.path} ({self.to}): {compared} (bound {self.bound:.1e})", "Open it, without contralex:"]
        lines += [f"  {line}" for line in self.loading.splitlines()]
        return "\n".join([*lines, f"Images: {self.transform.get('words') or '; '.join(self.transform['steps'])}"])


@checked
def export(run: PathLike, to: ExportFormat, out: PathLike, *, allow_code: bool = False) -> Export:
    """The backbone of a run's encoder for another library, with a card and the transform beside it.

    ``to``: ``timm`` (a folder for ``timm.create_model("local-dir:...")``, the hub and transformers), ``torchvision`` (a
    state dict: ``.safetensors`` or ``.pth``), ``transformers`` (a folder for ``AutoModel``), ``onnx``, or
    ``torch-export`` (``.pt2``). ``out``: a folder, or a file of that ending. What was written is opened again and
    compared with the encoder first, and nothing is left where it differs, or where the library has no such
    architecture, which is a :class:`ContralexError`.

    >>> import contralex
    >>> contralex.export("runs/my-run", "torch-export", "exported").path
    PosixPath('exported')
    """
    from contralex.exporting import card
    from contralex.exporting.export import write_export

    place = expand_user(str(path_text(out)))
    with progress.listening("stderr"), progress.during(f"Writing and comparing {place}"), permission(allow_code):
        target, written, transform = write_export(Path(run), to, place)
    compared = written.comparison
    lines = card.loading_lines(written, str(target.opened))
    return Export(to, target.path, compared.difference, compared.largest, compared.bound, lines, transform)
