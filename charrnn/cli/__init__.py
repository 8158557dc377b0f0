"""The command line: one module for each command, which reads, calls and writes; NumPy is imported late."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

import charrnn
from charrnn.cli.eval import evaluate
from charrnn.cli.export import export
from charrnn.cli.gradcheck import gradcheck
from charrnn.cli.gradflow import gradflow
from charrnn.cli.info import info
from charrnn.cli.overlap import overlap
from charrnn.cli.plot import plot
from charrnn.cli.report import report
from charrnn.cli.sample import sample
from charrnn.cli.score import score
from charrnn.cli.show import show
from charrnn.cli.threads import THREADS, set_threads, told
from charrnn.cli.train import train
from charrnn.errors import CharrnnError, Exit


class Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn what goes wrong into one line on stderr and an exit code."""
        for fd in range(3):  # where one is closed, the next file that is opened would take its place
            try:
                os.fstat(fd)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
        sys.stderr = sys.stderr or io.StringIO()  # as the shell's 2>&- leaves it
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:  # as the shell's >&- leaves it
                sys.stdout.flush()
        except CharrnnError as e:
            click.echo(f"charrnn: {e}", err=True)
            ctx.exit(e.exit_code)
        except MemoryError as e:
            click.echo(f"charrnn: not enough memory: {str(e).lower() or 'a smaller model may fit'}", err=True)
            ctx.exit(Exit.USAGE)
        except KeyboardInterrupt:
            ctx.exit(Exit.INTERRUPTED)
        except OSError as e:
            # what is still buffered must not fail again when Python closes stdout
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(e, BrokenPipeError):  # the reader has what it wanted
                ctx.exit(Exit.OK)
            click.echo(f"charrnn: {e.filename or 'standard output'}: {(e.strerror or str(e)).lower()}", err=True)
            ctx.exit(Exit.SAVE)
        return result


def version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import platform

    set_threads(1)
    import numpy as np

    build: Any = np.show_config(mode="dicts")
    blas = build["Build Dependencies"]["blas"]
    click.echo(
        f"charrnn {charrnn.__version__}, Python {platform.python_version()}, NumPy {np.__version__}, "
        f"{blas['name']} {blas['version']}, {told(THREADS)} in training, {cpu()}"
    )
    ctx.exit()


def cpu() -> str:
    import platform
    from pathlib import Path

    info = Path("/proc/cpuinfo")  # Linux; elsewhere the platform module knows
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "CHARRNN",
        "max_content_width": 100,
    },
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=version, help="Show the versions.")
def main() -> None:
    """Learn to write, one character at a time, from any text, and write more like it.

    \b
      charrnn train corpus.txt
      charrnn sample --temp 0.8

    Exit codes: 0 done; 2 usage; 3 the text; 4 the checkpoint; 5 a character that the model does not know;
    6 the loss is not finite, or a gradient is wrong; 7 a save failed; 130, 143 interrupted.
    """  # noqa: D301


for command in (train, sample, evaluate, score, show, overlap, plot, report, gradflow, gradcheck, info, export):
    main.add_command(command)
