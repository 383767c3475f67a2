"""The command line: ``contralex``, and ``python -m contralex`` where a launcher starts several processes."""

from __future__ import annotations

import os
import sys


def main() -> int:
    from contralex.errors import ContralexError

    try:
        from contralex.cli.app import app

        app(prog_name="contralex")
    except ContralexError as error:
        code = error.exit_code
        if not error.on_every_process or os.environ.get("RANK", "0") == "0":
            print(error if code == 130 else f"Error: {error}", file=sys.stderr)  # 130: stopped by a signal, no mistake
        return code
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
