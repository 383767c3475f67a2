"""One step of training: look up, backward, the optimiser's step, and then what changes after it, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from contralex.data.loading import Batch, mix_seed
from contralex.lookup import distributed, late_checks
from contralex.lookup.clock import Clock
from contralex.lookup.sharded_tensors import own_part
from contralex.lookup.step import LookUp
from contralex.lookup.values import Answer, Rows, Step, StepResult
from contralex.lookup.view import ViewBatch
from contralex.training import health, optimizers
from contralex.training.run_state import Run

_MOST_SKIPPED = 10  # steps in a row, after which leaving them out is no help


def take_step(run: Run, batch: Batch, clock: Clock) -> StepResult | None:
    """None where the step was left out, because of its loss.

    With ``train.accumulate`` the batch is several look-ups. Each adds its gradient to the mean; then there is one step
    of the optimiser, one update of the key encoder, and one of the dictionary, with the keys of all of them.
    """
    spec, prepared = run.spec.train, run.prepared
    before = _forward_state(run.method) if spec.on_bad_loss == "skip" else {}
    moments: list[Step] = []
    results: list[StepResult] = []
    for part, (views, index) in enumerate(_look_ups(run, batch)):
        moment = Step(clock, spec.seed, spec.look_up_size, micro_batch=spec.micro_batch, part=part)
        _seed_noise(run, part)
        with prepared.without_reduction() if part + 1 < spec.accumulate else nullcontext():
            with late_checks.collect() as checks:
                result: StepResult = prepared.wrapped_method(views, index.to(run.device, non_blocking=True), moment)
            # To leave a step out, all processes must know of it before the optimiser moves: this waits for the loss.
            if spec.on_bad_loss == "skip" and run.stopping.is_any(not bool(torch.isfinite(result.loss))):
                _leave_out(run, before)
                return None
            # A bad loss is acted on after the step: the other processes wait for this one's backward.
            run.loss_check.add(run.step + 1, result.loss, index, checks)
            prepared.backward(result.loss if spec.accumulate == 1 else result.loss / spec.accumulate)
        moments.append(moment)
        results.append(result)
    run.progress.skipped_in_a_row = 0
    prepared.end_backward()
    optimizers.drop_frozen_gradients(run.optimizer, clock)
    _clip(run)
    prepared.wrapped_optimizer.step()
    prepared.wrapped_optimizer.zero_grad()
    whole = _join(results)
    if not run.accelerator.optimizer_step_was_skipped:  # fp16 skips a step whose gradient overflowed
        run.method.update(whole.keys, Step.join(moments))
    run.loss_check.read(wait=False)
    return whole


def _seed_noise(run: Run, part: int) -> None:
    """What a network draws by itself (dropout, drop path) is a function of the seed, the step and the process, so that
    a run repeats, and goes on after a stop as if there had been none."""
    seed = mix_seed(run.spec.train.seed, run.step, part, distributed.rank())
    torch.default_generator.manual_seed(seed)
    if run.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _look_ups(run: Run, batch: Batch) -> Iterator[tuple[Mapping[int, ViewBatch], Tensor]]:
    """The views and the samples of each look-up of a step."""
    parts = run.spec.train.accumulate
    if parts == 1:
        yield _views(run, batch["views"]), batch["index"]
        return
    size = len(batch["index"]) // parts
    for begin in range(0, parts * size, size):
        rows = slice(begin, begin + size)
        yield _views(run, {view: images[rows] for view, images in batch["views"].items()}), batch["index"][rows]


def _views(run: Run, views: Mapping[int, ViewBatch]) -> Mapping[int, ViewBatch]:
    """The views on the run's device. Each micro-batch moves its own, so that a GPU need not hold them all."""
    if run.spec.train.samples_at_once(distributed.world()) < len(next(iter(views.values()))):
        return MappingProxyType(views)  # DistributedDataParallel would move the tensors of a dict
    return {view: images.to(run.device, non_blocking=True) for view, images in views.items()}


def _join(results: list[StepResult]) -> StepResult:
    """The means and all keys of the look-ups of a step."""
    if len(results) == 1:
        return results[0]
    loss = torch.stack([result.loss.detach() for result in results]).mean()
    accuracy = torch.stack([result.accuracy for result in results]).mean()
    answers = {name: _mean([result.answers[name] for result in results]) for name in results[0].answers}
    keys = Rows.join_batches([result.keys for result in results])
    return StepResult(loss, accuracy, keys, results[-1].entries, answers)


def _mean(answers: Sequence[Answer]) -> Answer:
    loss = torch.stack([answer.loss for answer in answers]).mean()
    return replace(answers[-1], loss=loss, accuracy=torch.stack([answer.accuracy for answer in answers]).mean())


def _clip(run: Run) -> None:
    spec = run.spec.train
    if spec.clip is not None and spec.clip_each:
        run.accelerator.unscale_gradients()
        optimizers.clip_each(run.method.parameters(), spec.clip)
    elif spec.clip is not None and spec.clip_parts:
        run.accelerator.unscale_gradients()
        for part in run.parts_to_clip:
            optimizers.clip_norm(part, spec.clip)
    elif spec.clip is not None:
        run.prepared.clip_gradients(spec.clip)


def _leave_out(run: Run, before: Mapping[Tensor, Tensor]) -> None:
    """The run is as it was ``before`` this step, the gradients of its earlier look-ups included."""
    for buffer, value in before.items():
        buffer.copy_(value)
    run.prepared.end_backward()
    run.prepared.wrapped_optimizer.zero_grad()
    _count_skipped(run)


def _count_skipped(run: Run) -> None:
    """A step is left out. That helps against one bad batch, and not against bad weights."""
    run.progress.skipped_steps += 1
    run.progress.skipped_in_a_row += 1
    step = run.step + 1
    if bad := health.blown_up({name: own_part(each) for name, each in run.method.state_dict().items()}):
        run.stopping.report_bad_loss(
            f"the weights are not finite before step {step} ({health.name_some(bad)}), and so is no loss", step
        )
    elif run.progress.skipped_in_a_row == _MOST_SKIPPED:
        run.stopping.report_bad_loss(
            f"the loss was no number in {_MOST_SKIPPED} steps in a row, up to step {step}", step
        )


def _forward_state(method: LookUp) -> dict[Tensor, Tensor]:
    """What a forward pass writes: running statistics, a normaliser. (A negative source writes after the step alone.)"""
    kept = {id(buffer) for question in method.questions.values() for buffer in question.negatives.buffers()}
    return {buffer: buffer.clone() for buffer in method.buffers() if id(buffer) not in kept}
