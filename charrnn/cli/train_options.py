"""The options of ``charrnn train`` that a file of options can set."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from charrnn.cli import common
from charrnn.cli.common import Count
from charrnn.config import CELL_ALIASES, Config
from charrnn.errors import UsageError, os_reason
from charrnn.formatting import escape_control

CONFIG_OPTIONS = {f.name for f in dataclasses.fields(Config)}
FIXED_OPTIONS = CONFIG_OPTIONS - {"max_steps"} | {
    "init_from",
    "config",
    "preset",
    "seconds",
    "features",
}
# of a file of options: those that decide the result
OTHER_TYPES = {"workers": int, "val_file": str, "features": str, "init_from": str, "preset": str}
FILE_OPTIONS = CONFIG_OPTIONS | {*OTHER_TYPES}

HELP_GROUPS = ("Options", "To predict the next symbol", "To predict label, tags or text")
GROUP_OF_OPTION = {"predict": HELP_GROUPS[2], "features": HELP_GROUPS[2]} | {
    f.name: HELP_GROUPS[1 if "next" in f.metadata["only"] else 2]
    for f in dataclasses.fields(Config)
    if f.metadata["only"] or f.metadata["never"]
}


class TrainCommand(click.Command):
    """Shows in its help the options that only some tasks read in groups of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in HELP_GROUPS}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                groups[GROUP_OF_OPTION.get(param.name or "", "Options")].append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


class FileOption(click.Option):
    """An option that a file of options can set; the file has precedence over the environment."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        return None if self.name in (ctx.default_map or {}) else super().resolve_envvar_value(ctx)


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every field of Config."""
    for f in reversed(dataclasses.fields(Config)):
        m, flags = f.metadata, ["--" + f.name.replace("_", "-")]
        if f.name == "learning_rate":
            flags.append("--lr")
        option = functools.partial(click.option, *flags, f.name, default=f.default, help=m["help"])
        kind, high = m["type"], m["high"]
        if kind is bool:
            command = option(is_flag=True, cls=FileOption)(command)
            continue
        if high and high >= 1e9:  # Config checks it; in the help it would only distract
            high = None
        if m["choices"]:
            kind = click.Choice([*m["choices"], *(CELL_ALIASES if f.name == "cell" else ())])
        elif kind is int:
            kind = Count(m["low"], high)
        elif kind is float:
            kind = common.Number(m["low"], high)
        command = option(type=kind, cls=FileOption)(command)
    return command


def read_defaults(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Take the options in a TOML file as defaults. Raises UsageError, naming the file."""
    if path is None:
        return
    if sys.version_info < (3, 11):
        raise UsageError("--config needs Python 3.11 or later; give the options themselves")
    tomllib = importlib.import_module("tomllib")
    try:
        with path.open("rb") as f:
            given = tomllib.load(f)
    except (OSError, ValueError) as e:
        reason = os_reason(e) if isinstance(e, OSError) else e
        raise UsageError(escape_control(f"{path}: {reason}")) from None
    options = {name.replace("-", "_"): value for name, value in given.items()}
    if "lr" in options:
        options["learning_rate"] = options.pop("lr")
    for name in options:
        if name not in FILE_OPTIONS:
            similar = difflib.get_close_matches(name, FILE_OPTIONS, n=1)
            hint = f"; did you mean {similar[0]}?" if similar else ""
            raise UsageError(escape_control(f"{path}: unknown option {name!r}{hint}"))
        kind, value = OTHER_TYPES.get(name), options[name]
        if kind and type(value) is not kind:
            wanted = "an integer" if kind is int else "a string"
            raise UsageError(escape_control(f"{path}: invalid {name}: {value}; must be {wanted}"))
    try:
        Config(**{name: value for name, value in options.items() if name in CONFIG_OPTIONS})
    except UsageError as e:
        raise UsageError(escape_control(f"{path}: {e}")) from None
    ctx.default_map = options
