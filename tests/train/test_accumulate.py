"""``train.accumulate``: a step that is the mean of several look-ups, with one update of all that follows it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from contralex.errors import ContralexError
from contralex.lookup import batch_norm
from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.lookup.values import Rows, Step, StepResult
from contralex.recipes.layers import Resolved, resolve
from contralex.recipes.sample_counts import check_share
from contralex.training import build, devices, optimizers
from contralex.training.batches import batches
from contralex.training.prepare import prepare_run
from contralex.training.run import train
from contralex.training.run_folder import RunFolder
from contralex.training.run_state import PreparedMethod, Run
from contralex.training.train_step import take_step
from tests.processes import free_port, spawn
from tests.train.tiny import TINY

PARTS, BATCH, STEPS = 2, 8, 2
CLOSE = 1e-4  # after two steps in float32, of a fused optimiser beside a plain one
SGD = "train.optimizer={kind: sgd, lr: 0.01}"
METHODS = {
    "moco-v2": ["method.negatives.size=24", "train.batch_norm=4"],
    "simclr-v1": ["train.batch_norm=4"],
    "instdisc": ["method.negatives.draws=16", "train.batch_norm=4"],
    "byol": ["train.batch_norm=4"],
    "vicregl": ["train.batch_norm=4"],
    "dino": ["method.negatives.count=10", "train.batch_norm=4", "train.clip_each=false", "train.clip=null"],
    "swav-small-batch": [
        "method.negatives.count=10",
        "method.targets.queue={size: 8, start_epoch: 0}",
        "train.batch_norm=4",
    ],
}


def resolved(name: str, images: Path, *more: str) -> Resolved:
    sets = [*TINY, SGD, "train.log_every=1", *METHODS.get(name, []), *more]
    return resolve(name, preset="digits", data=str(images), sets=sets)


@contextmanager
def prepared(spec: Resolved, folder: Path) -> Iterator[Run]:
    with devices.close_process_group(), RunFolder(folder / "run", spec.run.name, resume=False) as place:
        run = prepare_run(spec, place, resume=False)
        run.prepared.wrapped_method.train()
        yield run


def steps_of(run: Run, count: int = STEPS) -> Iterator[StepResult | None]:
    """Steps as the loop takes them."""
    train = run.spec.train
    made = batches(run.split, run.views, train, run.device, epochs=train.epochs)
    for _, batch in zip(range(count), made, strict=False):
        optimizers.set_rates(run.optimizer, train.optimizer, run.clock(), train.batch_size)
        yield take_step(run, batch, run.clock())
        run.progress.step += 1


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_the_mean_of_its_look_ups(name: str, images: Path, tmp_path: Path) -> None:
    spec = resolved(name, images, f"train.accumulate={PARTS}")
    with prepared(spec, tmp_path) as run:
        expected = by_hand(run)
        found = [result for result in steps_of(run) if result is not None]
        state = run.method.state_dict()
    assert len(found) == STEPS
    for result, step in zip(found, expected, strict=True):
        assert float(result.loss) == pytest.approx(step["loss"], rel=CLOSE)
        assert apart({"keys": step["keys"]}, {"keys": result.keys.vectors}) < CLOSE
    for slot in ("encoder", "key_encoder", "negatives", "targets"):
        wanted = {key: value.float() for key, value in expected[-1]["state"].items() if key.startswith(f"{slot}.")}
        assert apart(wanted, {key: state[key].float() for key in wanted}) < CLOSE, slot


def by_hand(run: Run) -> list[dict[str, Any]]:
    """The same steps, part by part, in plain torch."""
    spec, split = run.spec, run.split
    model = build.look_up(spec, len(split), split.labels).train()
    batch_norm.convert(model, spec.train.batch_norm)
    optimizer = optimizers.build(spec.train.optimizer, model)
    out = []
    made = batches(split, run.views, spec.train, run.device, epochs=spec.train.epochs)
    for number, batch in zip(range(STEPS), made, strict=False):
        clock = Clock(number, run.total, run.per_epoch)
        optimizers.set_rates(optimizer, spec.train.optimizer, clock, BATCH)
        optimizer.zero_grad()
        moments, results, means = [], [], []
        for part in range(PARTS):
            own = [part * BATCH // PARTS + at for at in range(BATCH // PARTS)]
            moment = Step(clock, spec.train.seed, BATCH // PARTS, part=part)
            views = {view: images[own] for view, images in batch["views"].items()}
            result = model(views, batch["index"][own], moment)
            (result.loss / PARTS).backward()
            moments.append(moment)
            results.append(result)
            if "dino" in spec.name:
                means.append(result.keys.vectors @ model.negatives._key_side[0].weight.detach().T)
        optimizers.drop_frozen_gradients(optimizer, clock)
        optimizer.step()
        keys = joined([result.keys for result in results])
        whole = Step(clock, spec.train.seed, BATCH)
        model.key_encoder.update(whole)
        model.negatives.update(keys, whole)
        if means:  # DINO, Eq. 4, once a step
            model.targets.centre.mul_(0.9).add_(0.1 * torch.cat(means).mean(dim=0))
        else:
            model.targets.update(keys, whole)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        losses = [float(result.loss.detach()) for result in results]
        out.append({"loss": sum(losses) / PARTS, "keys": keys.vectors, "state": state})
    return out


def joined(parts: Sequence[Rows]) -> Rows:
    """View after view, and in each the parts' rows: a search of the tags, row by row."""
    rows = [(int(part.view[at]), part, at) for part in parts for at in range(len(part))]
    rows.sort(key=lambda row: row[0])
    return Rows(*(torch.stack([getattr(part, name)[at] for _, part, at in rows]) for name in FIELDS))


FIELDS = ("vectors", "sample", "view", "position")


def trained(spec: Resolved, folder: Path) -> list[dict[str, Tensor]]:
    """The parameters after each step."""
    with prepared(spec, folder) as run:
        return [
            {name: each.detach().clone().contiguous() for name, each in run.method.encoder.named_parameters()}
            for _ in steps_of(run)
        ]


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    if not one:
        return 0.0
    flat, theirs = (torch.cat([each[name].flatten() for name in one]) for each in (one, other))
    return float((flat - theirs).norm() / flat.norm().clamp_min(1e-12))


def test_accumulated_look_ups_are_no_larger_batch(images: Path, tmp_path: Path) -> None:
    """BYOL compares no samples, so its step is that of the whole batch; SimCLR's negatives are of a part alone."""
    difference = {}
    for name in ("byol", "simclr-v1"):
        sets = ("train.batch_norm=4",)
        whole, parts = (
            trained(resolved(name, images, *sets, f"train.accumulate={count}"), tmp_path / f"{name}-{count}")
            for count in (1, PARTS)
        )
        difference[name] = apart(whole[0], parts[0])
    assert difference["byol"] < 1e-6
    assert difference["simclr-v1"] > 1e-4


def test_micro_batches_divide_a_part(images: Path, tmp_path: Path) -> None:
    sets = ["train.accumulate=2", "train.batch_norm=2"]
    whole, parts = (
        trained(resolved("moco-v2", images, *sets, *more), tmp_path / str(len(more)))
        for more in ((), ("train.micro_batch=2",))
    )
    assert apart(whole[-1], parts[-1]) < 1e-6


def test_each_look_up_draws_its_own(images: Path) -> None:
    first, second = (Step(Clock(3, 10, 5), seed=0, batch=4, part=part) for part in (0, 1))
    whole = Step(Clock(3, 10, 5), seed=0, batch=8)
    draws = [torch.rand(8, generator=step.generator("mine")) for step in (first, second, whole)]
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_the_cache_of_one_look_up_is_not_taken_for_that_of_a_step() -> None:
    moments = [Step(Clock(0, 10, 5), seed=0, batch=4, part=part) for part in (0, 1)]
    for moment in moments:
        moment.cache["mine"] = moment.part
    whole = Step.join(moments)
    assert whole.batch == 8
    assert [cache["mine"] for cache in whole.caches] == [0, 1]
    with pytest.raises(ContralexError, match=r"step.caches(.|\n)*--set train.accumulate=1"):
        whole.cache.get("mine")
    assert Step.join(moments[:1]).caches == [moments[0].cache]


def test_a_step_with_one_bad_look_up_is_left_out(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = resolved("moco-v2", images, "train.accumulate=2", "train.on_bad_loss=skip")
    look_up = LookUp.look_up

    def spoil(self: LookUp, queries: Rows, keys: Rows, step: Step) -> StepResult:
        result = look_up(self, queries, keys, step)
        if (step.clock.step, step.part) == (1, 1):
            return StepResult(result.loss * float("nan"), result.accuracy, result.keys, result.entries)
        return result

    monkeypatch.setattr(LookUp, "look_up", spoil)
    with prepared(spec, tmp_path) as run:
        states: list[dict[str, Tensor]] = []
        found = []
        for result in steps_of(run, 3):
            found.append(result is not None)
            states.append({name: each.clone() for name, each in run.method.state_dict().items()})
            assert all(each.grad is None for each in run.method.parameters())
    assert found == [True, False, True]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[1][name], states[2][name]) for name in states[1])


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["train.accumulate=3"], r"accumulate is 3, which does not divide batch_size \(8\)"),
        (["train.accumulate=2", "train.micro_batch=8"], r"larger than batch_size / accumulate \(4\)"),
        (["train.accumulate=2", "train.micro_batch=3"], r"does not divide batch_size / accumulate \(4\)"),
    ],
)
def test_what_cannot_be_divided_is_refused(sets: list[str], sentence: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match=sentence):
        train(resolved("moco-v2", images, *sets), tmp_path / "run")


def test_a_look_up_of_one_sample_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match=r"so a look-up has 1 sample, and method(.|\n)*--set train.accumulate=1"):
        train(resolved("simclr-v1", images, "train.accumulate=8"), tmp_path / "run")
    with pytest.raises(ContralexError, match=r"in 3 parts \(train.accumulate\)(.|\n)*--set train.batch_size=18"):
        check_share(20, processes=2, accumulate=3)


def test_a_run_says_that_its_look_ups_are_small(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = resolved("simclr-v1", images, "train.accumulate=2", "train.epochs=1")
    train(spec, tmp_path / "run")
    assert "5 steps of 8 images in 2 parts of 4, each with a look-up of its own, 1 epoch" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert spec.digest != resolved("simclr-v1", images, "train.epochs=1").digest


def _worker(rank: int, port: int, images: Path, folder: Path, name: str, sets: Sequence[str]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2")
    torch.set_num_threads(1)
    wrap = PreparedMethod.wrap
    reduced = []

    def count(_: None, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations, which are strings here
        reduced.append(bucket.index())
        future = torch.distributed.all_reduce(bucket.buffer().div_(2), async_op=True).get_future()
        return future.then(lambda done: done.value()[0])

    def wrap_and_count(*arguments: Any) -> PreparedMethod:
        made = wrap(*arguments)
        made.wrapped_method.register_comm_hook(None, count)  # type: ignore[operator]
        return made

    PreparedMethod.wrap = wrap_and_count  # type: ignore[method-assign]
    train(_run_on_two(images, name, sets), folder / "two")
    (folder / f"{rank}.json").write_text(json.dumps(reduced))


def _run_on_two(images: Path, name: str, sets: Sequence[str]) -> Resolved:
    every = ("train.batch_norm=2", "train.epochs=1", "train.clip=0.5")
    return resolved(name, images, *every, *sets)


ACCUMULATE = "train.accumulate=2"
DENSECL = ["method.negatives.size=24", "method.look_ups.dense.negatives.size=24"]


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("moco-v2", [ACCUMULATE]),
        ("densecl", [ACCUMULATE, *DENSECL]),
        ("densecl", [ACCUMULATE, *DENSECL, "method.look_ups.dense.negatives.pooled=null"]),
        ("moco-v2", ["train.micro_batch=2"]),
        ("simclr-v1", ["train.micro_batch=2"]),
    ],
    ids=[
        "moco-v2",
        "densecl",
        "densecl, whose queue has means of its own",
        "moco-v2, in micro-batches",
        "simclr-v1, in micro-batches",
    ],
)
def test_two_processes_are_one_and_exchange_gradients_once_a_step(
    name: str, sets: Sequence[str], images: Path, tmp_path: Path
) -> None:
    """Queues, whose keys are written in the order of one process, are the same, too."""
    port = free_port()
    spawn(_worker, (port, images, tmp_path, name, sets))
    train(_run_on_two(images, name, sets), tmp_path / "one")
    one, two = (load_file(tmp_path / name / "checkpoints" / "step-5" / "model.safetensors") for name in ("one", "two"))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [0] * 5
