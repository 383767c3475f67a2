"""Trains the methods of a plan, several at once where there are GPUs, each by ``contralex train`` in its own processes.

So nothing of one run (a process group, Accelerate's state, a random generator, memory) reaches the next, and one that
crashes takes none with it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contralex.comparison.plan import Entry, Plan, folder_of
from contralex.errors import ContralexError, remedy
from contralex.files import read_json
from contralex.recipes import yaml
from contralex.recipes.layers import Resolved
from contralex.recipes.paths import absolute, local_paths
from contralex.training import parent, resuming
from contralex.training.checkpoints.read import open_checkpoint
from contralex.training.folders import SPEC
from contralex.training.launch import pass_signals_to


class ComparisonStopped(ContralexError):
    """The comparison was asked to stop by a signal. The exit code is 128 + the signal's number."""

    def __init__(self, sentence: str, signal: int) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signal


def check_folder(plan: Plan, out: Path, resume: bool) -> None:
    """Refuses a folder that holds other runs than these, or runs that nobody asked to go on with, or none at all."""
    if resume and not out.is_dir():
        raise ContralexError(f"--resume: there is no folder {out}; give the comparison's --out, or leave --resume out")
    for entry in plan.entries:
        folder = folder_of(out, entry)
        if entry.budget.seeds and (folder.parent / "metrics.jsonl").exists():
            raise ContralexError(f"{folder.parent} holds a run of a comparison without --seeds; choose another --out")
        if not (folder / "metrics.jsonl").exists() and not (folder / "checkpoints").exists():
            continue
        if not resume:
            raise ContralexError(
                f"{folder} already holds a run; go on with the comparison by --resume, or choose another --out"
            )
        found = finished(folder)
        if found is not None and entry.resolved is not None:
            changes = differences(folder, found, entry.resolved)
            if changes:
                raise ContralexError(
                    f"{folder} is a finished run with another spec: {'; '.join(changes)}; repeat the options that the "
                    "comparison was started with, or choose another --out"
                )


def differences(folder: Path, results: dict[str, Any], resolved: Resolved) -> list[str]:
    """What a finished run did in another way than ``resolved`` says."""
    try:
        begun = yaml.read((folder / SPEC).read_text("utf-8"), str(folder / SPEC)).data
    except (OSError, ValueError):
        begun = None
    if results.get("digest") != resolved.digest:
        # The digest alone does not tell: a default that was added to a spec since changes it too.
        return resuming.spec_changes(open_checkpoint(folder, ()), resolved, allowed=False)
    there = local_paths(resolved.anchored().run)  # which are no part of the digest
    before = {keys: _at(begun, keys) for keys in there}
    return [
        f"{'.'.join(map(str, keys))}: {before[keys]} → {now}"
        for keys, now in there.items()
        if absolute(str(before[keys])) != now
    ]


def _at(data: Any, keys: Sequence[str | int]) -> Any:
    try:
        for key in keys:
            data = data[key]
    except (LookupError, TypeError):
        return None
    return data


def finished(folder: Path) -> dict[str, Any] | None:
    """What ``results.json`` of a run says, or None where there is none that can be read."""
    try:
        found = read_json(folder / "results.json")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def train_or_reuse(resolved: Resolved, folder: Path) -> dict[str, Any]:
    """The results of a run in ``folder``, which is trained in this process if it is not finished there already.

    A run that has begun there goes on from its last checkpoint. Raises :class:`ContralexError` where the folder holds a
    finished run with other settings. Training reports to stderr.
    """
    from contralex.training.run import train

    results = finished(folder)
    if results is None:
        return train(resolved, folder, resume=has_checkpoint(folder), to="stderr")
    if changes := differences(folder, results, resolved):
        raise ContralexError(
            f"{folder} holds a run with other settings ({'; '.join(changes)}); choose another folder with --out"
        )
    return results


def run_all(
    plan: Plan, out: Path, processes: int, quiet: bool, say: Callable[[str], None], at_once: int | None = None
) -> dict[str, dict[str, Any] | str]:
    """Results by the runs' names; where one could not be trained, the reason. ``quiet``: stdout is the table's.

    ``at_once``: how many are trained at the same time; None: as many as there are groups of ``processes`` GPUs, and
    one on the CPU. Each has a group of GPUs of its own, as long as there are enough.
    """
    slots = list_slots(processes, at_once)
    machine = Machine(quiet, slots)
    found: dict[str, dict[str, Any] | str] = {}
    waiting: list[tuple[str, Entry]] = []
    for number, entry in enumerate(plan.entries, 1):
        head = f"[{number}/{len(plan.entries)}] {entry.name}"
        done = finished(folder_of(out, entry))
        if entry.problem:
            say(f"{head} is left out: {entry.problem}")
            found[entry.name] = entry.problem
        elif done is not None:
            say(f"{head} is finished.")
            found[entry.name] = done
        else:
            waiting.append((head, entry))

    def train(head: str, entry: Entry) -> dict[str, Any] | str | None:
        return None if machine.signals else _one(entry, head, folder_of(out, entry), processes, machine, say)

    with pass_signals_to(machine.children) as machine.signals, ThreadPoolExecutor(len(slots)) as pool:
        trained = list(pool.map(train, *zip(*waiting, strict=True))) if waiting else []
    if machine.signals:
        onward = remedy("--resume", "--out", out)
        where = f" in {' and '.join(machine.stopped)}" if machine.stopped else ""
        raise ComparisonStopped(f"Stopped{where}; to go on, repeat the command with:{onward}", machine.signals[0])
    found |= {entry.name: results for (_, entry), results in zip(waiting, trained, strict=True) if results is not None}
    return {entry.name: found[entry.name] for entry in plan.entries}


@dataclass
class Machine:
    """Where runs are trained. ``slots``: the environments of those that are free. ``children``: every process that was
    started. ``signals`` that came meanwhile are passed on to them. ``stopped``: the names of the runs that they ended.
    """

    quiet: bool
    slots: list[dict[str, str]]
    children: list[subprocess.Popen[Any]] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.is_shared = len(self.slots) > 1


def list_slots(processes: int, at_once: int | None) -> list[dict[str, str]]:
    """What the environment of each run that is trained at the same time has beside ours: its own group of GPUs; on the
    CPU, an equal part of the cores."""
    import torch

    count = torch.cuda.device_count()
    if count:
        said = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = said.split(",")[:count] if said else [str(number) for number in range(count)]
        groups = [gpus[start : start + processes] for start in range(0, count - processes + 1, processes)] or [gpus]
        wanted = at_once or len(groups)
        return [{"CUDA_VISIBLE_DEVICES": ",".join(groups[slot % len(groups)])} for slot in range(wanted)]
    wanted = at_once or 1
    if wanted == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{} for _ in range(wanted)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [{"OMP_NUM_THREADS": str(max(cores // (wanted * processes), 1))} for _ in range(wanted)]


def _one(
    entry: Entry, head: str, folder: Path, processes: int, machine: Machine, say: Callable[[str], None]
) -> dict[str, Any] | str:
    say(head)
    resume = has_checkpoint(folder)
    if not resume:  # what a run leaves that was stopped before its first checkpoint
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    code, said = _train(_argv(entry, folder, processes, resume), entry.name, machine)
    if machine.signals:
        machine.stopped.append(entry.name)
        return said
    results = finished(folder)
    if code != 0 or results is None:
        killed = f"it was killed by {signal.Signals(-code).name}" if code < 0 else ""
        reason = killed or said or f"it ended with {code} and said nothing"
        say(f"{entry.name} failed." if said and not killed else f"{entry.name} failed: {reason}")  # said: just above
        return reason
    return results


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("step-*"))


def _argv(entry: Entry, folder: Path, processes: int, resume: bool) -> list[str]:
    budget = entry.budget
    options = {"--preset": budget.preset, "--data": budget.data, "--out": folder, "--processes": processes}
    said = [f"{name}={value}" for name, value in options.items() if value is not None]
    flags = [name for name, on in {"--resume": resume, "--allow-code": budget.allow_code}.items() if on]
    return ["train", *said, *(f"--set={text}" for text in budget.all_sets()), *flags, "--", entry.recipe]


def _train(argv: list[str], name: str, machine: Machine) -> tuple[int, str]:
    """The exit code, and the sentence with which a run that failed ended. Where others are trained at the same time,
    the run's name stands before each of its lines."""
    slot = machine.slots.pop()
    own = 2 if machine.quiet else None  # stdout; 2 is stderr, where the comparison itself speaks
    child = subprocess.Popen(
        [sys.executable, "-m", "contralex", *argv],
        env={**parent.child_environment(), **slot},
        stdout=subprocess.PIPE if machine.is_shared else own,
        stderr=subprocess.STDOUT if machine.is_shared else subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that Ctrl-C reaches it once, through the handler
    )
    machine.children.append(child)
    if machine.signals:  # one that came while it was started
        child.send_signal(machine.signals[0])
    last: deque[str] = deque(maxlen=200)
    for line in (child.stdout if machine.is_shared else child.stderr) or ():
        sys.stderr.write(f"{name}: {line}" if machine.is_shared else line)
        last.append(line.rstrip())
    code = child.wait()
    machine.slots.append(slot)
    return code, _sentence(list(last))


def _sentence(lines: list[str]) -> str:
    """The last error, with the commands below it that mend it."""
    errors = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    if not errors:
        return ([line for line in lines if line] or [""])[-1].strip()
    first, *below = lines[errors[-1] :]
    commands = itertools.takewhile(lambda line: line.startswith("  "), below)
    return "\n".join([first.removeprefix("Error: "), *commands])
