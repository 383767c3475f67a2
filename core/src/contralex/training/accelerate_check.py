"""Before a run starts: what ``accelerate launch`` was configured for, and whether a run of contralex does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from packaging.version import Version

from contralex.errors import ContralexError, remedy
from contralex.recipes.run_spec import TrainSpec

_FSDP = "ACCELERATE_USE_FSDP"
# In each, parameters or their optimiser live in parts that a run knows nothing of.
_OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}
_ACCUMULATION = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
FIRST_TORCH = Version("2.7")  # whose fully_shard leaves parameters out that it is told to


@dataclass(frozen=True)
class ShardingPlan:
    """What FSDP2 is configured for. ``classes`` and ``least``: the modules below an encoder that are gathered one by
    one, by the names of their classes, or by how many parameters they have at least; 0: none."""

    classes: frozenset[str] = frozenset()
    least: int = 0
    reshard_after_forward: bool = True
    """Whether those are sharded again before the backward pass, which gathers them once more."""


def check(train: TrainSpec) -> None:
    """Raises :class:`ContralexError` for what a run does not do. Called before the process group is opened."""
    for variable, name in _OTHERS.items():
        if _is_on(variable):
            raise _only_copies(name)
    if _is_on(_FSDP):
        _check_sharding(train)
    steps = os.environ.get(_ACCUMULATION, "1")
    if steps != "1":
        raise ContralexError(
            f"Accelerate is configured to accumulate the gradients of {steps} steps, which divides each by {steps}; "
            "a step of contralex is one batch. Leave that out. To divide a batch into look-ups of their own, and "
            f"accumulate their gradients:{remedy('--set', f'train.accumulate={steps}')}"
            f"\nFor a large contrastive batch in little memory:{remedy('--set', 'train.micro_batch=64')}"
        )


def sharding_plan() -> ShardingPlan | None:
    """None where Accelerate is not configured for FSDP."""
    if not _is_on(_FSDP):
        return None
    policy = os.environ.get("FSDP_AUTO_WRAP_POLICY", "NO_WRAP").upper()
    classes = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "") if policy == "TRANSFORMER_BASED_WRAP" else ""
    return ShardingPlan(
        frozenset(name.strip() for name in classes.split(",") if name.strip()),
        int(os.environ.get("FSDP_MIN_NUM_PARAMS", "0")) if policy == "SIZE_BASED_WRAP" else 0,
        os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("true", "1", "full_shard"),
    )


@contextmanager
def without_sharding() -> Iterator[None]:
    """Around the making of an Accelerator, which would shard the method as a whole, and no method on a CPU."""
    before = os.environ.pop(_FSDP, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[_FSDP] = before


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")


def _check_sharding(train: TrainSpec) -> None:
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise _only_copies(f"FSDP {version}", "or in its version 2, with `fsdp_version: 2`")
    if Version(torch.__version__) < FIRST_TORCH:
        raise _only_copies(f"FSDP 2, which needs torch {FIRST_TORCH}, and this is torch {torch.__version__}")
    for variable, what in (("OFFLOAD_PARAMS", "parameters"), ("ACTIVATION_CHECKPOINTING", "activations")):
        if _is_on(f"FSDP_{variable}"):
            setting = f"fsdp_{variable.lower()}"
            raise ContralexError(
                f"Accelerate is configured for FSDP with {setting}, and contralex keeps {what} on the device. Leave it "
                f"out. Where memory does not suffice, encode fewer samples at once:"
                + remedy("--set", "train.micro_batch=64")
            )
    for field, value, way in (
        ("precision", "fp16", "bf16"),  # whose scaler would have to see the gradients of all parts
        ("compile", True, "false"),
        ("channels_last", True, "null"),  # parts are rows of contiguous weights
    ):
        if getattr(train, field) == value:
            told = str(value).lower()
            raise ContralexError(
                f"Accelerate is configured for FSDP, and train.{field} is {told}, which do not go together here. Try:"
                + remedy("--set", f"train.{field}={way}")
            )


def _only_copies(name: str, otherwise: str = "") -> ContralexError:
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return ContralexError(
        f"Accelerate is configured for {name}, and contralex trains with one copy of the model on each process "
        f"(DistributedDataParallel){f', {otherwise}' if otherwise else ''}. Start it without that configuration:"
        + remedy("torchrun", "--nproc_per_node", processes, "-m", "contralex", "train")
        + "\nWhere memory does not suffice, encode fewer samples at once:"
        + remedy("--set", "train.micro_batch=64")
    )
