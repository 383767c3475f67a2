"""Checks on what a method keeps: it goes through a checkpoint whole."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from contralex.recipes.layers import resolve_data
from contralex.testing.check_errors import Failed
from contralex.testing.step_checks import check_equal, copy_state
from contralex.testing.trials import Trial
from contralex.training.checkpoints import write
from contralex.training.checkpoints.read import open_checkpoint
from contralex.training.checkpoints.state import CheckpointState


def through_safetensors(trial: Trial) -> None:
    """The state after two steps goes through safetensors bit for bit, into a method built afresh."""
    model = trial.build()
    optimizer = trial.optimizer(model)
    for number in range(2):
        trial.advance(model, optimizer, number)
    state = {name: tensor.contiguous() for name, tensor in copy_state(model).items()}
    with tempfile.TemporaryDirectory() as folder:
        save_file(state, Path(folder) / "state.safetensors")
        fresh = trial.build()
        _fits(state, fresh.state_dict())
        fresh.load_state_dict(load_file(Path(folder) / "state.safetensors"))
    check_equal(state, fresh.state_dict(), "{} is another after it was saved and loaded")


def resumes(trial: Trial) -> None:
    """A run that is saved after two steps and resumed equals one that was not stopped, bit for bit. State that is a
    plain attribute, not a buffer, is lost here."""
    straight = trial.build()
    optimizer = trial.optimizer(straight)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):
            trial.advance(straight, optimizer, number)
        write.save(Path(folder), CheckpointState.make(resolve_data(trial.data), 2), straight.state_dict(), optimizer)
        resumed = trial.build()
        restored = trial.optimizer(resumed)
        write.restore(open_checkpoint(Path(folder) / "step-2"), resumed, restored)
    for number in range(2, 4):
        one = trial.advance(straight, optimizer, number).loss.detach()
        other = trial.advance(resumed, restored, number).loss.detach()
        if not torch.equal(one, other):
            raise Failed(
                f"the loss of step {number} is {float(one)} without a stop and {float(other)} after one; keep what "
                "changes in buffers (register_buffer)"
            )
    check_equal(copy_state(straight), resumed.state_dict(), "after a stop and two more steps, {} is another")


def _fits(state: dict[str, Tensor], fresh: dict[str, Tensor]) -> None:
    """A checkpoint is loaded into a method that was just built."""
    for name in sorted(state.keys() ^ fresh.keys()):
        raise Failed(
            f"{name} is there {'only after steps' if name in state else 'only before the first step'}; register every "
            "buffer in __init__, in the shape that it keeps"
        )
    for name, tensor in state.items():
        if tensor.shape != fresh[name].shape:
            raise Failed(
                f"{name} grew from {tuple(fresh[name].shape)} to {tuple(tensor.shape)}; register it in the shape that "
                "it keeps"
            )
