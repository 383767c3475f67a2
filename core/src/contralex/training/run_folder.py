"""The folder that a run is written to, the same on every process."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist

from contralex.errors import ContralexError, remedy
from contralex.files import write_text
from contralex.lookup import distributed
from contralex.training import folders

_SIGNALS = 128  # an exit status of more is a signal's


class RunFolder:
    """Where a run is written. The main process locks it for all, until the context ends.

    A run that is refused before it has begun leaves nothing: what was made for it is removed again.
    """

    def __init__(self, out: Path | None, name: str, resume: bool) -> None:
        self.out = out
        self._name = name
        self._resume = resume
        self._lock: folders.Lock | None = None
        self._made: list[Path] = []

    def check_free(self, main: bool) -> None:
        """Refuses, before anything is built, a folder that holds another run or that another process writes to; a run
        that is resumed is this one's from now on."""
        _run_on_main(main, self._lock_folder if self._resume else self._refuse_another_run)

    def begin(self, main: bool) -> Path:
        """Now the run can begin. Makes the folder of a new one."""
        return Path(
            _run_on_main(main, lambda: str(self._go_on(self.out) if self._resume and self.out else self._make()))
        )

    def check_still_there(self) -> None:
        """Before something is written there."""
        if self._lock is not None:
            self._lock.check()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        is_refused = isinstance(error, ContralexError) and error.exit_code == 2
        if isinstance(error, Exception) and not is_refused:
            self._note_failure(error)
        if is_refused and self._made and _has_not_begun(self._lock.folder):
            with suppress(OSError):
                (self._lock.folder / folders.SPEC).unlink(missing_ok=True)
        self._lock.release()
        if is_refused:
            folders.remove_empty(self._made)

    def _note_failure(self, error: Exception) -> None:
        """For whoever lists runs: why this one failed. One that a signal stopped has not failed."""
        if self._lock is None or (isinstance(error, ContralexError) and error.exit_code > _SIGNALS):
            return
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        with suppress(OSError, ContralexError):  # a full disk, or a folder that is gone
            self._lock.check()
            write_text(self._lock.folder / folders.FAILURE, json.dumps({"reason": reason}) + "\n")

    def _go_on(self, out: Path) -> Path:
        """Without the reason for which an earlier start failed."""
        with suppress(OSError):
            (out / folders.FAILURE).unlink(missing_ok=True)
        return out

    def _make(self) -> Path:
        if self.out is None:
            chosen, self._made = folders.make_new(folders.name_by_time(self._name))
        else:
            chosen, self._made = self.out, folders.make(self.out)
        self._lock_folder(chosen)
        self._refuse_another_run()  # which came and went since
        return self._go_on(chosen)

    def _lock_folder(self, chosen: Path | None = None) -> None:
        lock = folders.Lock(chosen or self.out or Path())
        if not lock.folder.is_dir():
            raise ContralexError(f"--resume: there is no folder {lock.folder}; see --out, or leave --resume out.")
        lock.acquire()
        self._lock = lock

    def _refuse_another_run(self) -> None:
        out = self.out
        if out is None:
            return
        if self._lock is None and (out / folders.LOCK).exists():
            with folders.Lock(out):  # says who has it
                pass
        if (out / "checkpoints").exists() or (out / "metrics.jsonl").exists():
            raise ContralexError(
                f"{out} already holds a run; choose another folder with --out, or go on with it:"
                + remedy("contralex", "train", "--resume", "--out", out)
            )


def _has_not_begun(path: Path) -> bool:
    return {each.name for each in path.iterdir()} <= {folders.SPEC, folders.LOCK}


def _run_on_main(main: bool, action: Callable[[], str | None]) -> Any:
    """What the main process's action returns, or what it refuses, on every process."""
    answer: list[Any] = [None, None]
    if main:
        try:
            answer = [action(), None]
        except ContralexError as error:
            answer = [None, error]
    if distributed.world() > 1:
        dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]
