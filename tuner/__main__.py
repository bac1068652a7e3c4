"""The command `tuner`, and `python -m tuner`: ends in one line also where Ctrl-C comes while the program is loaded."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from tuner.guard import heeded

        with heeded():
            from tuner.cli import main as run

            run()
    except KeyboardInterrupt:
        print("tuner: stopped before it had begun", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
