"""The program: ``charrnn``, or ``python -m charrnn``."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C may come while its modules are imported."""
    try:
        from charrnn.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
