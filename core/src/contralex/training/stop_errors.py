"""The errors with which a run ends before its last step, and the sentences that say how to go on."""

from __future__ import annotations

from contralex.errors import ContralexError, command_to_resume
from contralex.training.checkpoints import read
from contralex.training.run_state import Run


class RunStopped(ContralexError):
    """The run was asked to stop by a signal; its checkpoint is written. The exit code is 128 + the signal's number."""

    on_every_process = True

    def __init__(self, sentence: str, signal: int) -> None:
        super().__init__(sentence)
        self.signal, self.exit_code = signal, 128 + signal

    def with_sentence(self, sentence: str) -> RunStopped:
        """Of what this run is a part of."""
        return RunStopped(sentence, self.signal)


class BadLoss(ContralexError):
    """The loss is no number, or a step blew the weights up; the checkpoints from before are valid."""

    exit_code = 1
    on_every_process = True


class HookFailed(ContralexError):
    """A plugin's hook raised, and the run has stopped for it; its checkpoint is written."""

    exit_code = 1
    on_every_process = True


class RefusedByHook(ContralexError):
    """A plugin's hook has found a mistake of the user's, and the run has stopped for it."""

    on_every_process = True


def stopped_error(run: Run) -> RunStopped | HookFailed | RefusedByHook:
    """Why a run has stopped that is saved at this step: a signal, or a hook."""
    where = f"step {run.step} of {run.total}, saved as {run.folder / 'checkpoints' / f'step-{run.step}'}"
    allow = ["--allow-code"] if run.resolved.code else []
    onward = command_to_resume(run.folder, *allow)
    if run.stopping.signal:
        return RunStopped(f"Stopped at {where}; go on with:{onward}", run.stopping.signal)
    if run.stopping.mistake:
        return RefusedByHook(f"{run.stopping.mistake}\nThe run stopped at {where}; mend this, then go on with:{onward}")
    return HookFailed(
        f"{run.stopping.failure}. The run stopped at {where}; mend the plugin, then go on, or go on whatever the hook "
        f"does:{onward}" + command_to_resume(run.folder, *allow, "--set", "train.on_hook_error=warn")
    )


def bad_loss_error(run: Run, problem: str) -> BadLoss:
    """``problem``: of the step ``run.stopping.bad_step``, or of weights that were about to be saved."""
    saved = run.folder / "checkpoints"
    steps = [int(path.name.removeprefix("step-")) for path in read.steps(saved)] if saved.is_dir() else []
    bad_step = run.stopping.bad_step
    with_these = bool(bad_step) and bad_step - 1 in steps and run.progress.saved_at == bad_step - 1
    before = max((step for step in steps if step < run.step - with_these), default=None)
    last = f"step-{before}, from before, is whole" if before is not None else "none was written yet"
    if with_these:  # to go on from it would end in the same way
        last = f"step-{bad_step - 1} has the weights that gave this loss; " + last.replace("yet", "before it")
    skip = "" if run.spec.train.on_bad_loss == "skip" else ", or leave such steps out with train.on_bad_loss=skip"
    return BadLoss(
        f"{problem}; lower train.optimizer.lr, train in fp32 or bf16, or set train.clip{skip}. "
        f"Checkpoints in {run.folder}: {last}."
    )


def raise_after_the_end(run: Run) -> None:
    """For a hook that failed when the run was over."""
    if run.stopping.mistake:
        raise RefusedByHook(f"{run.stopping.mistake}\nThe run itself is over, and its results are in {run.folder}.")
    if run.stopping.failure:
        raise HookFailed(f"{run.stopping.failure}. The run itself is over, and its results are in {run.folder}.")
