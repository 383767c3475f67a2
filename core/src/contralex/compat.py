"""The private names of other libraries, and what differs between their versions; each with the reason.

Nothing else in the package touches a private name of another library. A method that a subclass overrides because the
library calls it stays in that subclass. torch is imported inside the functions, because commands that need no torch
import this module.
"""

from __future__ import annotations

import atexit
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn
    from torch.distributed.distributed_c10d import Store
    from torch.nn.modules.batchnorm import _BatchNorm

    BatchNorm = _BatchNorm


def __getattr__(name: str) -> Any:
    """``BatchNorm``, what torch's BatchNorm layers of all dimensions have in common. torch has no public name for it,
    and a list of its public subclasses would miss those of other libraries."""
    if name != "BatchNorm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torch.nn.modules.batchnorm import _BatchNorm

    return _BatchNorm


# Python


def run_exit_functions() -> None:
    """Run the functions that were registered with ``atexit``, before a process leaves with ``os._exit``, which skips
    them. Python has no public name for it."""
    atexit._run_exitfuncs()


def record_folder(distribution: metadata.Distribution) -> Path:
    """The folder of a distribution's record (``*.dist-info``). The standard library keeps it in a private attribute of
    one of its classes and has no public one; another class says only where its files are installed."""
    return Path(str(getattr(distribution, "_path", distribution.locate_file(""))))


# Pillow


def detached_image(image: Image) -> Image:
    """The image without its file, with the same pixels in memory. ``Image.copy``, the public way, copies them."""
    image.load()
    return image._new(image.im)


# torch: one kernel for a list of tensors. The public optimisers use these functions, which have no public names; a loop
# over the tensors launches hundreds of kernels where one or two will do.


def lerp_each(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """Move each of ``tensors`` towards its end by the fraction ``weight``, in place."""
    import torch

    torch._foreach_lerp_(list(tensors), list(ends), weight)


def copy_each(tensors: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its tensor."""
    import torch

    torch._foreach_copy_(list(tensors), list(sources))


def multiply_each(tensors: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
    """Multiply each of ``tensors`` by its scalar factor, in place."""
    import torch

    torch._foreach_mul_(list(tensors), list(factors))


def norm_each(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The Euclidean norm of each tensor, a list of scalars."""
    import torch

    return list(torch._foreach_norm(list(tensors)))


def add_each(tensors: Sequence[Tensor], others: Sequence[Tensor], weight: float) -> None:
    """Add to each of ``tensors`` the other of its index, times ``weight``, in place."""
    import torch

    torch._foreach_add_(list(tensors), list(others), alpha=weight)


def add_products(tensors: Sequence[Tensor], others: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
    """Add to each of ``tensors`` the other of its index, times its scalar factor, in place."""
    import torch

    torch._foreach_addcmul_(list(tensors), list(others), list(factors))


def step_fused(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    velocities: Sequence[Tensor],
    *,
    rate: float,
    decay: float,
    momentum: float,
    nesterov: bool,
) -> None:
    """One step of SGD by torch's fused kernel, which reads and writes each number once; CPUs and CUDA have it.

    All of an index have one layout. There are no velocities where there is no momentum.
    """
    import torch

    kinds = list(dict.fromkeys((each.device, each.dtype) for each in parameters))
    for kind in kinds:
        of_kind = [len(kinds) == 1 or (each.device, each.dtype) == kind for each in parameters]
        torch._fused_sgd_(
            list(compress(parameters, of_kind)),
            list(compress(gradients, of_kind)),
            list(compress(velocities, of_kind)),
            weight_decay=decay,
            momentum=momentum,
            lr=rate,
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
            is_first_step=False,
        )


def move_with_momentum(
    parameters: Sequence[Tensor],
    updates: Sequence[Tensor],
    velocities: Sequence[Tensor],
    momentum: float,
    rate: float,
) -> None:
    """v ← momentum·v + update; p ← p − rate·v, for each parameter, in place. All of an index have one layout."""
    import torch

    if momentum and all(each.device.type in ("cpu", "cuda") for each in parameters):
        step_fused(parameters, updates, velocities, rate=rate, decay=0.0, momentum=momentum, nesterov=False)
        return
    torch._foreach_mul_(list(velocities), momentum)
    torch._foreach_add_(list(velocities), list(updates))
    torch._foreach_add_(list(parameters), list(velocities), alpha=-rate)


def module_tables(module: nn.Module) -> list[dict[str, Any]]:
    """The dictionaries in which a module and all below it keep their submodules and parameters. torch has no public
    way to ask whether one has been replaced but to walk through all of them, which takes longer than an average of the
    parameters."""
    return [table for each in module.modules() for table in (each._modules, each._parameters)]


# torch: versions


def torch_is_before(version: str) -> bool:
    """Whether the installed torch is older than ``version``, such as ``2.8``."""
    import torch
    from packaging.version import Version

    return Version(torch.__version__) < Version(version)


# torch: autograd


def times_written(tensor: Tensor) -> int:
    """How often a tensor was written in place. torch counts it to find gradients that would be wrong, and describes the
    counter in its notes on autograd, but gives it no public name."""
    return tensor._version


def are_transforms_active() -> bool:
    """Whether a transform of torch.func (vmap, grad, ...) is going on. An autograd function works in one only where it
    has a ``setup_context``, which takes 20 µs a call; torch asks this for itself, and gives it no public name."""
    import torch

    return bool(torch._C._are_functorch_transforms_active())


# torch: processes


def default_store() -> Store:
    """The key-value store by which the processes met. torch gives the default group's store no public name; a second
    store would need a port of its own."""
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def destroy_process_group() -> None:
    """Close the process group. Before torch 2.8 a gloo group joins its threads while it holds Python's lock, and waits
    for ever where one of them still needs the lock to free the tensors of the last collective (pytorch#154976), so the
    threads get time for that first."""
    import torch.distributed as dist

    if torch_is_before("2.8"):
        time.sleep(0.1)
    dist.destroy_process_group()


def keep_from_broadcasts(module: nn.Module, names: Sequence[str]) -> None:
    """Have ``DistributedDataParallel`` leave these buffers and parameters of ``module`` alone. torch documents no other
    way, and reads this attribute of the module that it wraps."""
    module._ddp_params_and_buffers_to_ignore = list(names)  # type: ignore[assignment]


@contextmanager
def broadcast_buffers_argument() -> Iterator[None]:
    """Around ``DistributedDataParallel(..., broadcast_buffers=False)``: torch 2.15 announces another name for the
    argument; the old one works from 2.4 on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        yield


def overload_name(operation: Any) -> str:
    """Which form of one of torch's operations it is, such as ``Tensor`` of ``repeat_interleave.Tensor``. torch has no
    public name for it."""
    return str(operation._overloadname)


# Other libraries


def classified_files(dataset: Any) -> tuple[list[Path], list[int]]:
    """The images' paths and labels of one of torchvision's data sets that lists files. It has no public names for them
    where there is no ``samples``, and would decode every image to give its label."""
    files = dataset._images if hasattr(dataset, "_images") else dataset._image_files
    return [Path(file) for file in files], [int(label) for label in dataset._labels]


def make_resnet_stage(resnet: Any, block: type[nn.Module], planes: int, blocks: int, stride: int) -> nn.Module:
    """Make a stage of torchvision's ResNet with another width. Its public functions make four stages of fixed widths,
    and blocks that are put together here could differ from torchvision's."""
    stage: nn.Module = resnet._make_layer(block, planes, blocks, stride)
    return stage


def accelerate_states() -> list[dict[str, Any]]:
    """The dictionaries in which Accelerate keeps its state for the whole process. It has no public way to put an
    earlier state back."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    return [state._shared_state for state in (PartialState, AcceleratorState, GradientState)]


@contextmanager
def plain_globals() -> Iterator[None]:
    """What ``torch.load(weights_only=True)`` may build beside tensors within this block: the arguments of a command and
    numbers of NumPy, which published checkpoints hold beside their weights. torch 2.4 has no such block, and before 2.6
    no way to say that NumPy 1 called its function by another module. ``codecs.encode`` makes the bytes of a number."""
    import argparse
    import codecs

    import numpy as np
    import torch

    number = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")}
    plain: list[Any] = [argparse.Namespace, np.dtype, number, codecs.encode, *sorted(kinds, key=str)]
    if not torch_is_before("2.6"):
        plain += [(number, "numpy.core.multiarray.scalar"), (number, "numpy._core.multiarray.scalar")]
    if torch_is_before("2.5"):
        torch.serialization.add_safe_globals(plain)
        yield
        return
    with torch.serialization.safe_globals(plain):
        yield
