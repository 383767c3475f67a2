"""``fit=True``: the settings of a run that depend on its data and on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from contralex import progress
from contralex.errors import ContralexError
from contralex.recipes.layers import Resolved


def fit_settings(
    resolve: Callable[[Sequence[str]], Resolved], processes: int, minutes: float | None, resume: bool
) -> list[str]:
    """The texts of ``--set`` that fit the run to its data, each said with its reason.

    ``resolve``: makes the spec, with further texts below the user's own.
    """
    from contralex.training import build, devices
    from contralex.training.activation_memory import bytes_a_sample
    from contralex.training.dry_run import seconds_a_step
    from contralex.training.fit import fit

    if minutes is not None and not minutes > 0:
        raise ContralexError(f"minutes is {minutes:g}, and must be above 0")
    if resume:
        raise ContralexError("--fit is for a run that begins; one that is resumed has its settings already")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if minutes is not None and launched > 1:  # each process would measure another time
        raise ContralexError("--minutes measures in one process; give --epochs where a launcher starts several")
    dataset_size = len(build.read_source(resolve([]).run.data).train())
    processes = max(processes, launched)
    _, settings = fit(resolve, dataset_size, processes, devices.kind(), minutes, seconds_a_step, bytes_a_sample)
    progress.say("Fitted to the data and to this machine:" if settings else "Everything fits as it is.")
    for setting in settings:
        progress.say(f"  {setting}")
    return [setting.text for setting in settings]
