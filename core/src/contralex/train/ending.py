"""Why a run ends before its last step: a signal, a plugin that asks for it, or a plugin's hook that failed.

Each of these may happen on one process alone, at any moment. The others only know after they have agreed, at a moment
that all of them reach; so nothing here acts at once, and no process waits for one that has left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from contralex import distributed


class Ending:
    """``signal``, ``failure`` and ``stop`` are what all processes have agreed on.

    ``failure``: the sentence that says which hook of which plugin failed. ``stop``: who asked for a clean end, and why.
    """

    def __init__(self) -> None:
        self.signal = False
        self.failure = ""
        self.stop: dict[str, str] | None = None
        self.asked_by_signal: Callable[[], bool] = lambda: False
        self._failure = ""
        self._stop: dict[str, str] | None = None

    def ask(self, by: str, reason: str) -> None:
        """Of several reasons the first is kept."""
        self._stop = self._stop or {"by": by, "reason": reason}

    def fail(self, sentence: str) -> None:
        self._failure = self._failure or sentence

    @property
    def now(self) -> bool:
        """Whether to leave at once, without what comes at the end of an epoch or of a run."""
        return self.signal or bool(self.failure)

    def agree(self, device: torch.device) -> None:
        """Every process calls this at the same step. Mostly one number is exchanged; the words only where needed."""
        mine = (self.asked_by_signal(), self._failure, self._stop)
        if distributed.world() > 1:
            asking = torch.tensor(float(any(mine)), device=device)
            if not distributed.sum_over_processes(asking) > 0:
                return
            everyone: list[Any] = [None] * distributed.world()
            dist.all_gather_object(everyone, mine)
        else:
            everyone = [mine]
        self.signal = any(signal for signal, _, _ in everyone)
        self.failure = next((failure for _, failure, _ in everyone if failure), "")
        self.stop = next((stop for _, _, stop in everyone if stop), None)
