"""`python -m tasc` and the console script `tasc`."""

import sys


def main() -> None:
    """Runs the command line. Ctrl-C while it is imported is one line too."""
    try:
        from tasc.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
