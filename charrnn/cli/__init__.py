"""The command line: one module per command. NumPy is imported late, so that help is fast."""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from charrnn.cli.common import set_threads
from charrnn.cli.compare import compare
from charrnn.cli.eval import evaluate
from charrnn.cli.export import export
from charrnn.cli.gradcheck import gradcheck
from charrnn.cli.gradflow import gradflow
from charrnn.cli.info import info
from charrnn.cli.ls import list_command
from charrnn.cli.overlap import overlap
from charrnn.cli.plot import plot
from charrnn.cli.predict import predict
from charrnn.cli.report import report
from charrnn.cli.sample import sample
from charrnn.cli.score import score
from charrnn.cli.show import show
from charrnn.cli.streams import discard_output, prepare_streams, print_message
from charrnn.cli.trace import trace
from charrnn.cli.train import train
from charrnn.cluster import GRACE_SECONDS, abort, launcher_rank
from charrnn.errors import CharrnnError, ExitCode, os_reason
from charrnn.formatting import format_count
from charrnn.training.interrupt import exit_on_signals
from charrnn.version import __version__

PROGRAM = "charrnn"
GROUPS = {
    "Write": (train, sample, predict),
    "Measure": (evaluate, score, overlap),
    "Look": (show, plot, report),
    "Understand": (trace, gradflow, gradcheck),
    "Files": (list_command, info, compare, export),
}


class Commands(click.Group):
    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        """Run the command line, and exit."""
        prepare_streams()
        exit_on_signals()
        set_threads(1)
        try:
            code = flush_output(self.run([*(sys.argv[1:] if args is None else args)]))
        except (KeyboardInterrupt, EOFError):
            code = ExitCode.INTERRUPTED
            abort(code)
        except Exception:
            abort(1, traceback.format_exc())
            raise
        sys.exit(code)

    def run(self, args: list[str]) -> int:
        """Run the command line; turn an error into one line on stderr. Return the exit code."""
        try:
            self._main_shell_completion({}, PROGRAM)
            with self.make_context(PROGRAM, args) as ctx:
                self.invoke(ctx)
            return ExitCode.OK
        # help and usage errors
        except click.exceptions.Exit as e:
            return e.exit_code
        except click.ClickException as e:
            print_usage_error(e)
            return e.exit_code
        # errors that a user can fix, and those of the system
        except CharrnnError as e:
            report_error(e)
            return e.exit_code
        except MemoryError as e:
            detail = f" ({str(e).lower()})" if str(e) else ""
            print_message(f"charrnn: out of memory{detail}; try a smaller model")
            return ExitCode.USAGE
        except OSError as e:
            return output_failure(e)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in their groups, each with its summary and its first example."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                for command in commands:
                    name, summary = command.name or "", command.get_short_help_str(limit=100)
                    (example, *_) = re.findall(r"^ +(.*charrnn .*)$", command.help or "", re.M)
                    formatter.write(f"  {name:<11}{summary}\n{'':<13}$ {example}\n")


def print_usage_error(e: click.ClickException) -> None:
    ctx = getattr(e, "ctx", None)
    if isinstance(e, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        print_message(*e.format_message().splitlines())
        return
    if ctx is not None:
        print_message(*ctx.get_usage().splitlines(), f"Try '{ctx.command_path} --help' for help.")
    print_message(f"Error: {e.format_message()}")


def report_error(e: CharrnnError) -> None:
    """Print an error. In a cluster, rank 0 prints one that all have; another one ends all ranks."""
    rank = launcher_rank()
    if rank and e.is_shared:
        return
    if rank:
        time.sleep(GRACE_SECONDS)  # rank 0 may have the same, and end this one
    where = f"rank {rank}: " if rank else ""
    print_message(f"charrnn: {where}{e.args[0]}", *e.args[1:])
    if not e.is_shared:
        abort(e.exit_code)


def output_failure(e: OSError) -> ExitCode:
    """Report a failed write and return the exit code; a reader that wants no more is none."""
    discard_output()
    if isinstance(e, BrokenPipeError):
        return ExitCode.OK
    print_message(f"charrnn: {e.filename or 'standard output'}: {os_reason(e)}")
    return ExitCode.SAVE


def flush_output(code: int) -> int:
    """Write what is left on standard output; return the exit code."""
    try:
        if sys.stdout is not None:  # after the shell's >&-
            sys.stdout.flush()
    except OSError as e:
        failed = output_failure(e)
        return code or failed
    return code


def version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the version of charrnn, of Python and NumPy, its BLAS, the threads and the CPU."""
    if not value or ctx.resilient_parsing:
        return
    import platform

    set_threads(1)
    import numpy as np

    from charrnn.workers import available_cores

    build: Any = np.show_config(mode="dicts")
    blas = build["Build Dependencies"]["blas"]
    click.echo(
        f"charrnn {__version__}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, {blas['name']} {blas['version']}, "
        f"{format_count(available_cores(), 'core')}, {cpu()}"
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
    character; 6 non-finite loss, or failed gradient check; 7 could not save; 8 a worker process
    ended, or ranks differ; 129, 130, 143, 152 ended by a signal (hang-up, Ctrl-C, termination, time
    limit).
    """  # noqa: D301


for command in (command for group in GROUPS.values() for command in group):
    main.add_command(command)
    # an option of several names has as many environment variables
    for param in command.params:
        names = [name[2:].upper().replace("-", "_") for name in param.opts if name[:2] == "--"]
        if len(names) > 1:
            param.envvar = [f"{PROGRAM}_{command.name}_{name}".upper() for name in names]
