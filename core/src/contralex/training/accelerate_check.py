"""Before a run starts: does what ``accelerate launch`` was configured for fit a run of contralex?"""

from __future__ import annotations

import os

from contralex.errors import ContralexError, remedy

# In each, parameters or their optimiser live in parts, where a run expects each process to hold all of them.
_SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}
_ACCUMULATION = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"


def check() -> None:
    """Raises :class:`ContralexError` where not. Called before the process group is opened."""
    for variable, name in _SHARDED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
            raise ContralexError(
                f"Accelerate is configured for {name}, and contralex trains with one copy of the model on each process "
                "(DistributedDataParallel). Start it without that configuration:"
                + remedy("torchrun", "--nproc_per_node", processes, "-m", "contralex", "train")
                + "\nWhere memory does not suffice, encode fewer samples at once:"
                + remedy("--set", "train.micro_batch=64")
            )
    steps = os.environ.get(_ACCUMULATION, "1")
    if steps != "1":
        raise ContralexError(
            f"Accelerate is configured to accumulate the gradients of {steps} steps, which divides each by {steps}; "
            "a step of contralex is one batch. Leave that out. To divide a batch into look-ups of their own, and "
            f"accumulate their gradients:{remedy('--set', f'train.accumulate={steps}')}"
            f"\nFor a large contrastive batch in little memory:{remedy('--set', 'train.micro_batch=64')}"
        )
