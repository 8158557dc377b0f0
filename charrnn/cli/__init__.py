"""The command line: one module per command. NumPy is imported late, so that help is fast."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import Any, NoReturn

import click

from charrnn.cli.common import DEFAULT_THREADS, set_threads
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
from charrnn.cli.train import train
from charrnn.errors import CharrnnError, ExitCode, os_reason
from charrnn.formatting import format_threads
from charrnn.version import __version__

GROUPS = {
    "Write": (train, sample),
    "Measure": (evaluate, score, overlap),
    "Look": (show, plot, report),
    "Understand": (gradflow, gradcheck),
    "Files": (info, export),
}


class Commands(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; the help, the version or a usage error may not be writable."""
        try:
            return super().main(*args, **kwargs)
        except OSError as e:
            discard_output()
            print_error(f"standard output: {os_reason(e)}")
            sys.exit(ExitCode.SAVE)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn an error into one line on stderr and an exit code."""
        # the next file that is opened would take the number of a closed stream
        for fd in range(3):
            try:
                os.fstat(fd)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
        sys.stderr = sys.stderr or io.StringIO()  # tqdm writes to it
        set_threads(1)
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:  # after the shell's >&-
                sys.stdout.flush()
            return result
        except CharrnnError as e:
            fail(ctx, str(e), e.exit_code)
        except MemoryError as e:
            detail = f" ({str(e).lower()})" if str(e) else ""
            fail(ctx, f"out of memory{detail}; try a smaller model", ExitCode.USAGE)
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED)
        except OSError as e:
            discard_output()
            if isinstance(e, BrokenPipeError):  # the reader wants no more
                ctx.exit(ExitCode.OK)
            where = e.filename or "standard output"
            fail(ctx, f"{where}: {os_reason(e)}", ExitCode.SAVE)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in their groups, each with its summary and its first example."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                for command in commands:
                    name, summary = command.name or "", command.get_short_help_str(limit=100)
                    (example, *_) = re.findall(r"^ +(.*charrnn .*)$", command.help or "", re.M)
                    formatter.write(f"  {name:<11}{summary}\n{'':<13}$ {example}\n")


def discard_output() -> None:
    """Let the buffer of a standard output that failed not fail again when Python closes it."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(ctx: click.Context, message: str, code: ExitCode) -> NoReturn:
    """Print the message on stderr and exit."""
    print_error(message)
    ctx.exit(code)


def print_error(message: str) -> None:
    with contextlib.suppress(OSError):  # stderr may be full or closed, too
        click.echo(f"charrnn: {message}", err=True)


def version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the version of charrnn, of Python and NumPy, its BLAS, the threads and the CPU."""
    if not value or ctx.resilient_parsing:
        return
    import platform

    set_threads(1)
    import numpy as np

    build: Any = np.show_config(mode="dicts")
    blas = build["Build Dependencies"]["blas"]
    click.echo(
        f"charrnn {__version__}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, {blas['name']} {blas['version']}, "
        f"{format_threads(DEFAULT_THREADS)} in training, {cpu()}"
    )
    ctx.exit()


def cpu() -> str:
    import platform
    from pathlib import Path

    info = Path("/proc/cpuinfo")  # on Linux; elsewhere the platform module knows the name
    text = info.read_text(errors="replace") if info.exists() else ""
    match = re.search("^model name[^:]*:(.*)", text, re.M)
    return match[1].strip() if match else platform.processor() or platform.machine()


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "CHARRNN",
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=version,
    help="Show the version of charrnn and of its dependencies.",
)
def main() -> None:
    """Train a character-level RNN on any text and generate more text like it.

    \b
      charrnn train corpus.txt
      charrnn sample --temp 0.8

    Exit codes: 0 success; 2 usage error; 3 unusable text; 4 unusable checkpoint; 5 unknown
    character; 6 non-finite loss, or failed gradient check; 7 could not save; 130, 143 interrupted
    or terminated.
    """  # noqa: D301


for command in (command for group in GROUPS.values() for command in group):
    main.add_command(command)
