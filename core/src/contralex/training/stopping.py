"""Why a run ends before its last step: a signal, a loss that is no number, a plugin that asks for it or that failed.

Each of these may happen on one process alone, at any moment. The others only know after they have agreed, which all of
them do at the end of every step; so nothing here acts at once, and no process waits for one that has left. Where
nothing depends on it before the next step, they ask each other at the end of a step and hear the answer at the end of
the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from contralex.lookup import distributed


class Stopping:
    """What all processes have agreed on, and what this one has seen since."""

    def __init__(self) -> None:
        self.signal = 0
        """The number of the signal that came."""
        self.bad_loss = ""
        """What was wrong with whose loss."""
        self.bad_step = 0
        """The step of that loss, counted from 1."""
        self.mistake = ""
        """The sentence of a hook that found a mistake of the user's."""
        self.failure = ""
        """The sentence that says which hook of which plugin failed."""
        self.stop: dict[str, str] | None = None
        """Who asked for a clean end, and why."""
        self.read_signal: Callable[[], int] = lambda: 0
        """The signal that came to this process, or 0."""
        self._bad_loss = ""
        self._bad_step = 0
        self._mistake = ""
        self._failure = ""
        self._stop: dict[str, str] | None = None
        self._mine: tuple[Any, ...] = ()
        self._is_any = torch.tensor(0)
        self._asking: dist.Work | None = None
        self._group: Any = None
        if distributed.world() > 1 and dist.get_backend() != "gloo":
            # What is agreed on is a few words of the CPU's; on the GPU each exchange would wait for all that is queued.
            self._group = dist.new_group(backend="gloo")

    def ask(self, by: str, reason: str) -> None:
        """Of several reasons the first is kept."""
        self._stop = self._stop or {"by": by, "reason": reason}

    def report_mistake(self, sentence: str) -> None:
        self._mistake = self._mistake or sentence

    def report_failure(self, sentence: str) -> None:
        self._failure = self._failure or sentence

    def report_bad_loss(self, sentence: str, step: int) -> None:
        """``step``: counted from 1."""
        if not self._bad_loss:
            self._bad_loss, self._bad_step = sentence, step

    @property
    def at_once(self) -> bool:
        """Whether to leave at once, without what comes at the end of an epoch or of a run."""
        return bool(self.signal or self.bad_loss or self.mistake or self.failure)

    def agree(self) -> None:
        """Every process calls this at the same step. Mostly one number is exchanged; the words only where needed."""
        self._hear()
        self._ask()
        self._hear()

    def agree_later(self) -> None:
        """As :meth:`agree`, on what was seen up to the last call: the answer has had a step's time to arrive, and
        nobody waits. A process that is alone has its answer."""
        if distributed.world() == 1:
            self.agree()
            return
        self._hear()
        if not self.at_once:
            self._ask()

    def _ask(self) -> None:
        """Begin to ask whether any process has seen something. What this one sees from now on belongs to the next
        question, so that all of them hear of the first that went wrong, and not of what came of it."""
        self._mine = (self.read_signal(), self._bad_loss, self._bad_step, self._mistake, self._failure, self._stop)
        if distributed.world() > 1:
            self._is_any = torch.tensor(int(any(self._mine)))
            self._asking = dist.all_reduce(self._is_any, op=dist.ReduceOp.MAX, group=self._group, async_op=True)

    def _hear(self) -> None:
        """Wait for the answer to the last question, if there is one that has not been heard."""
        is_any = any(self._mine)
        if self._asking is not None:
            self._asking.wait()
            self._asking, is_any = None, bool(self._is_any)
        everyone = self._exchange(self._mine) if is_any else []
        self._mine = ()
        for signal, bad_loss, bad_step, mistake, failure, stop in everyone:
            self.signal = self.signal or signal
            self.bad_loss, self.bad_step = self.bad_loss or bad_loss, self.bad_step or bad_step
            self.mistake = self.mistake or mistake
            self.failure = self.failure or failure
            self.stop = self.stop or stop

    def is_any(self, mine: bool) -> bool:
        """Whether it is so on any process. All call this."""
        if distributed.world() == 1:
            return mine
        asking = torch.tensor(int(mine))
        dist.all_reduce(asking, op=dist.ReduceOp.MAX, group=self._group)
        return bool(asking)

    def _exchange(self, mine: Any) -> list[Any]:
        if distributed.world() == 1:
            return [mine]
        everyone: list[Any] = [None] * distributed.world()
        dist.all_gather_object(everyone, mine, group=self._group)
        return everyone
