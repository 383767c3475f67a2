"""The command line: ``contralex``, and ``python -m contralex`` where a launcher starts several processes."""

from __future__ import annotations

import gc
import os
import sys


def main() -> int:
    gc.set_threshold(10_000)  # of the objects that imports make, few are garbage, and looking at them takes a tenth
    from contralex import streams

    streams.accept_any_text()
    code = _command()
    unwritten = streams.finish()
    if unwritten:
        print(f"Error: {unwritten}", file=sys.stderr)
        code = code or 1
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _leave(code)
    return code


def _command() -> int:
    from contralex.errors import ContralexError
    from contralex.training import parent, signals

    try:
        with signals.interrupt_command():
            parent.follow_parent()
            # To find its own plugins, pydantic reads the record of every package that is installed.
            os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
            from contralex.cli.app import narrow

            narrow(sys.argv[1:])(prog_name="contralex")
    except signals.Interrupted as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(stopped, file=sys.stderr)
        return stopped.exit_code
    except ContralexError as error:
        code = error.exit_code
        if not error.on_every_process or os.environ.get("RANK", "0") == "0":
            print(error if code > 128 else f"Error: {error}", file=sys.stderr)  # stopped by a signal: no mistake
        return code
    except OSError as error:
        from contralex.streams import explain_os_error

        sentence = explain_os_error(error)
        if sentence is None:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        return 1
    except SystemExit as done:  # how typer ends every command
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


def _leave(code: int) -> None:
    """End one of several processes without Python's own shutdown.

    DistributedDataParallel keeps gloo's threads beyond the process group. One that still lets go of a tensor while
    Python shuts down aborts the process, and a run that is complete would end with an error.
    """
    from contralex.compat import run_exit_functions

    run_exit_functions()  # trackers send there what they have left
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
