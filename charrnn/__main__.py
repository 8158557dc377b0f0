"""``python -m charrnn``."""

from charrnn.cli import main

main(prog_name="charrnn")
