"""A plugin whose import does not end, or ends the process: named, and no other's failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contralex.plugin import ContralexError
from contralex.plugins import guard
from contralex.plugins.guard import Ended, guarded
from contralex.plugins.registry import registry
from contralex.recipes.layers import resolve

Plugin = Callable[..., Path]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("os._exit(0)", "_exit"),
        ("os._exit(1)", "_exit"),
        ("os.abort()", "abort"),
        ("os.execvp('true', ['true'])", "execve"),
        ("os.execv('/bin/true', ['true'])", "execv"),
        ("__import__('posix')._exit(0)", "_exit"),
    ],
)
def test_a_plugin_that_would_end_the_command_is_broken(call: str, name: str, fake_plugin: Plugin) -> None:
    if "posix" in call and os.name != "posix":
        pytest.skip("no such module here")
    real = os._exit
    fake_plugin("leaves", f"import os\n{call}\n")
    plugin = registry().plugins["leaves"]
    assert (plugin.state, registry().plugins["contralex-moco"].state) == ("broken", "ready")
    assert plugin.reason.startswith("importing leaves was stopped: it called os.")
    assert name in plugin.reason or name == "execve"
    assert os._exit is real


def test_a_hook_that_would_end_the_command_is_broken(fake_plugin: Plugin) -> None:
    fake_plugin(
        "leaves",
        "import os\nfrom contralex.plugin import hookimpl\n@hookimpl\ndef contralex_losses():\n    os._exit(0)\n",
    )
    assert registry().plugins["leaves"].state == "broken"
    assert "it called os._exit" in registry().plugins["leaves"].reason


def test_a_code_file_that_would_end_the_command_is_refused(recipe: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import os\nos._exit(0)\n", "utf-8")
    recipe()
    path = recipe("schema: 1\nextends: small.yaml\ncode: leaves.py\n", "mine.yaml")
    with pytest.raises(ContralexError, match=r"leaves\.py failed: Ended: it called os\._exit"):
        resolve(path, allow_code=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_an_import_starts_may_end() -> None:
    with guarded("importing x", ""):
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        with pytest.raises(Ended):
            os._exit(0)


# Ends when the thread that watches it has spoken, however busy the machine is.
SLOW = """
import threading
for thread in threading.enumerate():
    if thread.name == "contralex watches imports":
        thread.join()
"""


def test_one_that_takes_long_is_named(
    fake_plugin: Plugin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry()  # the installed plugins are imported by now, with patience
    monkeypatch.setattr(guard, "PATIENCE", 1.5)
    monkeypatch.setenv("CONTRALEX_PLUGINS", "-contralex-moco")
    fake_plugin("slow", SLOW)
    assert registry().plugins["slow"].state == "ready"
    assert capsys.readouterr().err == (
        "Still importing slow after 1.5 s. To leave it out:\n  export CONTRALEX_PLUGINS=-contralex-moco,-slow\n"
    )


# It says so within what catches a signal: that may come at once.
HANGS = """
import time
begun = False
while True:
    try:
        if not begun:
            begun = True
            print("begun", flush=True)
        time.sleep(60)
    except BaseException:
        {}
"""
# No word about what takes long on a busy machine.
PATIENT = """
import signal, sys
from contralex import __main__
from contralex.plugins import guard
guard.PATIENCE = 3600
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores for what it starts with &
sys.exit(__main__.main())
"""


@pytest.mark.parametrize(
    ("then", "number", "signals"),
    [("raise", signal.SIGINT, 1), ("break", signal.SIGTERM, 1), ("pass", signal.SIGINT, 2)],
)
def test_ctrl_c_names_one_that_hangs(then: str, number: signal.Signals, signals: int, fake_plugin: Plugin) -> None:
    """It is not lost where the module goes on as if it had not come. A second one ends even what catches everything."""
    folder = fake_plugin("hangs", HANGS.format(then))
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(
        [sys.executable, "-c", PATIENT, "methods"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        try:
            assert command.stderr is not None
            assert command.stderr.readline() == "begun\n"  # what a module prints is no part of the answer
            command.send_signal(number)
            assert command.stderr.readline() == "Stopped while importing hangs. To leave it out:\n"
            assert command.stderr.readline() == "  export CONTRALEX_PLUGINS=-hangs\n"
            for _ in range(signals - 1):
                command.send_signal(number)
            assert command.wait(60) == 128 + number
            assert command.stderr.read() == ("" if signals > 1 else f"Stopped by {number.name}.\n")
        finally:
            command.kill()  # otherwise a test that fails would wait for ever
