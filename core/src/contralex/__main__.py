"""The command line: ``contralex``, and ``python -m contralex`` where a launcher starts several processes."""

from __future__ import annotations

import sys


def main() -> int:
    from contralex.errors import ContralexError

    try:
        from contralex.cli.app import app

        app(prog_name="contralex")
    except ContralexError as error:
        print(f"Error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
