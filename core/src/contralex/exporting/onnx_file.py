"""An ONNX file, which ONNX Runtime and many others run."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from contralex.compat import torch_is_before
from contralex.errors import ContralexError, remedy
from contralex.exporting.formats import Written
from contralex.exporting.original import Kept, Original

_TOLERANCE = 1e-4  # another library's kernels
_LOWEST_TORCH = "2.6"


def write(original: Original, folder: Path, file: str) -> Written:
    if torch_is_before(_LOWEST_TORCH):
        raise ContralexError(
            f"--to onnx needs torch {_LOWEST_TORCH} or later, and this is {torch.__version__}:"
            + remedy("pip", "install", f"torch>={_LOWEST_TORCH}")
        )
    runtime = _import_runtime()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own use of torch
        program = torch.onnx.export(
            Kept(original.backbone).eval(),
            (original.images,),
            input_names=["images"],
            output_names=["features"],
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ContralexError("--to onnx: torch made no ONNX program of this network; the format torch-export may do.")
    program.save(folder / file)
    session = runtime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    for images in (original.images[:1], original.images):  # any number of images
        features = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    return Written(
        original.compare(features, _TOLERANCE, "ONNX Runtime"),
        'import onnxruntime\nsession = onnxruntime.InferenceSession("{path}")\n'
        'features = session.run(None, {{"images": images.numpy()}})[0]',
        "onnx",
        "onnxruntime",
        f"It takes any number of images of {original.images.shape[3]} x {original.images.shape[2]} pixels.",
    )


def _import_runtime() -> Any:
    try:
        import onnx  # noqa: F401  # which torch.onnx needs, as onnxscript
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ContralexError(
            f"--to onnx needs {error.name}, which is not installed:" + remedy("pip", "install", "contralex[onnx]")
        ) from None
    return onnxruntime
