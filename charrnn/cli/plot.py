from __future__ import annotations

import codecs
import shutil
from pathlib import Path

import click

from charrnn.cli.choice import default_checkpoint, find_checkpoint
from charrnn.cli.common import file_option, flag, force_option
from charrnn.cli.streams import print_message, stdout, supports_color
from charrnn.errors import UsageError
from charrnn.storage.output import check_output


@click.command()
@click.argument("runs", metavar="[CHECKPOINT]...", nargs=-1, type=click.Path(path_type=Path))
@file_option("-o", "--output", help="Image file to write: .png, .svg or .pdf.")
@flag("--terminal", help="Draw in the terminal instead; does not need matplotlib.")
@click.option(
    "--x-axis",
    type=click.Choice(["steps", "epochs", "characters", "seconds"]),
    default="steps",
    help="Quantity on the x-axis.",
)
@flag("--bits", help="Show losses in bits instead of nats.")
@force_option
def plot(
    runs: tuple[Path, ...],
    output: Path | None,
    terminal: bool,
    x_axis: str,
    bits: bool,
    force: bool,
) -> None:
    """Plot the loss curves of one or more runs.

    Shows training and validation loss, the step with the best weights, and the best n-gram
    baseline. Default: the newest checkpoint in ./checkpoints.

    \b
      charrnn plot --terminal checkpoints/play.npz
      charrnn plot checkpoints/play.npz -o curve.png
    """  # noqa: D301
    if terminal == (output is not None):
        raise UsageError("give either --output FILE or --terminal")
    from charrnn.drawing.figures import plot_losses, read_states, save_figure
    from charrnn.drawing.terminal import render_losses

    if runs:
        paths = [find_checkpoint(run) for run in runs]
    else:
        newest = default_checkpoint()
        newest.announce()
        paths = [newest.path]
    if output is not None:
        check_output(output, force, paths)
    states = read_states(paths)
    if output is not None:
        try:
            figure = plot_losses(states, x_axis, bits)
        except UsageError as e:  # there is no matplotlib
            raise UsageError(f"{e}, or use --terminal") from None
        save_figure(figure, output)
        print_message(f"saved {output}")
        return
    encoding, color = stdout().encoding, supports_color()
    text = render_losses(
        states,
        x_axis,
        bits,
        width=shutil.get_terminal_size((80, 24)).columns,
        unicode=codecs.lookup(encoding).name == "utf-8",
        color=color,
    )
    stdout().write(text)
