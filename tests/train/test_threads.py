"""Threads and workers: stated, or by the cores and the first steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import contralex
from contralex.recipes.layers import resolve
from contralex.recipes.run_spec import TrainSpec
from contralex.training import devices, threads
from tests.train.tiny import TINY


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(devices, "_cores", lambda: 2)
    yield
    torch.set_num_threads(before)


def train_spec(*sets: str) -> TrainSpec:
    return resolve("moco-v2", preset="digits", sets=sets).run.train


def test_threads_are_tried_where_nobody_states_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.thread_choices(train_spec(), "cpu") == (1, 2)
    assert devices.thread_choices(train_spec("train.workers=0"), "cpu") == (2,)
    assert devices.thread_choices(train_spec("train.threads=3"), "cpu") == (3,)
    assert devices.thread_choices(train_spec(), "cuda") == (torch.get_num_threads(),)
    monkeypatch.setattr(devices, "_cores", lambda: 16)
    assert devices.thread_choices(train_spec(), "cpu") == (8, 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # which share the cores, and would measure each other
    assert devices.thread_choices(train_spec(), "cpu") == (8,)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    assert devices.thread_choices(train_spec(), "cpu") == (1,)


def test_workers_are_chosen_by_the_cores_and_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(cores: int) -> tuple[int, int]:
        monkeypatch.setattr(devices, "_cores", lambda: cores)
        return devices.workers(None, "cpu"), devices.workers(None, "cuda")

    assert [chosen(cores) for cores in (1, 2, 8, 28, 128)] == [(1, 1), (1, 1), (4, 7), (14, 27), (16, 32)]
    assert devices.workers(3, "cuda") == 3


def trained(seconds: dict[int, float], steps: int = 1000, *, chosen: int | None = None, slow: int = -1) -> Any:
    """A run whose steps take so long with each number of threads, and the step ``slow`` ten seconds more; it keeps the
    threads of each step."""
    run: Any = SimpleNamespace(
        spec=SimpleNamespace(train=train_spec()),
        device=torch.device("cpu"),
        progress=SimpleNamespace(seconds=0.0, threads=chosen),
        total=steps,
        step=0,
        threads=[],
        said=[],
    )
    batches: Any = iter(range(steps))
    for number in threads.with_fastest(batches, run, run.said.append):
        run.threads.append(torch.get_num_threads())
        run.progress.seconds += seconds[run.threads[-1]] + (10.0 if number == slow else 0.0)
        run.step += 1
    return run


@pytest.mark.parametrize(("seconds", "fastest"), [({1: 1.0, 2: 0.7}, 2), ({1: 1.0, 2: 3.0}, 1), ({1: 1.0, 2: 0.97}, 1)])
def test_the_first_steps_choose(seconds: dict[int, float], fastest: int) -> None:
    run = trained(seconds)
    assert len(run.threads) == 1000  # no batch is lost
    assert run.threads[:24] == [1] * 6 + [2] * 6 + [1] * 6 + [2] * 6
    assert set(run.threads[24:]) == {fastest}
    assert run.progress.threads == fastest
    assert run.said == [f"Threads: {fastest}, with which the first steps were the fastest."]


@pytest.mark.parametrize("slow", range(24))
def test_one_step_that_something_else_delays_does_not_choose(slow: int) -> None:
    assert trained({1: 1.0, 2: 0.7}, slow=slow).progress.threads == 2


def test_a_short_run_has_no_trial() -> None:
    run = trained({1: 1.0, 2: 0.7}, steps=100)
    assert (set(run.threads), run.progress.threads, run.said) == ({1}, None, [])


def test_a_resumed_run_keeps_what_it_had_chosen() -> None:
    run = trained({1: 1.0, 2: 3.0}, chosen=2)
    assert (set(run.threads), run.said) == ({2}, [])
    assert trained({1: 1.0, 2: 0.7}, chosen=7).progress.threads == 2  # 7 was another machine's


def test_what_was_chosen_is_in_the_checkpoint_and_kept(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_STEPS": 2, "_ROUNDS": 1, "_WORTH": 1}.items():
        monkeypatch.setattr(threads, name, value)
    options: Any = {"preset": "digits", "data": images, "out": tmp_path / "run"}
    contralex.train("simclr-v1", sets=[*TINY, "train.workers=1"], **options)
    chosen = state(tmp_path / "run")["threads"]
    assert chosen in (1, 2)
    monkeypatch.setattr(threads, "_trial", lambda *_: pytest.fail("a resumed run tried again"))
    more = [*TINY, "train.workers=1", "train.epochs=3"]
    contralex.train("simclr-v1", sets=more, resume=True, allow_drift=True, **options)
    assert state(tmp_path / "run")["threads"] == chosen


def test_stated_threads_compute_and_are_no_part_of_what_is_resumed(images: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    options: Any = {"preset": "digits", "data": images, "out": tmp_path / "run"}
    contralex.train("simclr-v1", sets=[*TINY, "train.threads=2"], **options)
    contralex.train("simclr-v1", sets=[*TINY, "train.threads=1"], resume=True, **options)
    assert state(tmp_path / "run")["spec"]["train"]["threads"] == 2  # that of its training
    assert torch.get_num_threads() == before


def state(folder: Path) -> Any:
    newest = max((folder / "checkpoints").glob("step-*"))
    return json.loads((newest / "state.json").read_text("utf-8"))
