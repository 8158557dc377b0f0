"""The program: ``charrnn``, or ``python -m charrnn``."""

import sys


def run() -> None:
    """Run the command line; Ctrl-C may come while its modules are imported."""
    sys.unraisablehook = lambda _: None  # an object that an interrupt left half made
    try:
        from charrnn.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    run()
