"""``charrnn train --grid``: a run for each combination of values."""

from __future__ import annotations

from itertools import product
from typing import Any

import click
from click.core import ParameterSource

from charrnn.cli import common
from charrnn.cli.compare import compare
from charrnn.cli.streams import print_message
from charrnn.cli.train_options import CONFIG_OPTIONS
from charrnn.errors import UsageError

MAX_RUNS = 1000


def parse_axis(value: str) -> tuple[str, list[str]]:
    """Return the option and the values of ``NAME=VALUE,VALUE``. Raises BadParameter."""
    name, _, values = value.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    name = "learning_rate" if name == "lr" else name
    if name not in CONFIG_OPTIONS or not values:
        raise click.BadParameter(f"{value!r} must be OPTION=VALUE,VALUE, as in hidden_size=64,128")
    return name, [each.strip() for each in values.split(",")]


def run_grid(ctx: click.Context, grid: list[tuple[str, list[str]]]) -> None:
    """Train each combination of the values of a grid, and compare the runs.

    Raises UsageError before the first run if one of them could not be made.
    """
    # the options of each run
    names = [name for name, _ in grid]
    if len({*names}) < len(names):
        raise UsageError("--grid: each option can be given once, with all of its values")
    if "-" in ctx.params["corpus"] or ctx.params["output"]:
        raise UsageError("--grid can neither read standard input nor be combined with --output")
    combinations = list(product(*(values for _, values in grid)))
    if len(combinations) > MAX_RUNS:
        raise UsageError(f"--grid: {len(combinations):,} runs are more than {MAX_RUNS:,}")
    common_args, base = arguments(ctx, {*names}), common.default_run_name(ctx.params["corpus"])
    contexts, paths = [], []
    for values in combinations:
        chosen = dict(zip(names, values, strict=True))
        label = "-".join(f"{name}={value}" for name, value in chosen.items())
        path = common.CHECKPOINT_DIR / f"{base}-{label}.npz"
        if "/" in label:
            raise UsageError(f"--grid: {label!r} cannot be part of a file's name")
        if path.is_file() and not (ctx.params["resume"] or ctx.params["force"]):
            raise UsageError(f"{path} already exists; use --resume or --force")
        args = [*ctx.params["corpus"], "-o", str(path)]
        if ctx.params["resume"] and path.is_file():
            args.append("--resume")
        else:
            args += common_args
            args += [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
        more: dict[str, Any] = {"parent": ctx.parent, "default_map": ctx.default_map}
        contexts.append(ctx.command.make_context("train", args, **more))
        paths.append(path)

    # the runs
    for i, (context, path) in enumerate(zip(contexts, paths, strict=True), 1):
        print_message(f"charrnn: run {i} of {len(paths)}: {path}")
        with context:
            ctx.command.invoke(context)
    if len(paths) > 1:
        ctx.invoke(compare, runs=tuple(map(str, paths)), as_json=False)


def arguments(ctx: click.Context, excluded: set[str]) -> list[str]:
    """Return the options of the command line again, without those of the grid."""
    args, excluded = [], {*excluded, "grid", "resume", "output"}
    for param in ctx.command.params:
        source = ctx.get_parameter_source(str(param.name))
        if not isinstance(param, click.Option) or param.name in excluded:
            continue
        if source is ParameterSource.COMMANDLINE and param.expose_value:
            value = ctx.params[str(param.name)]
            args += [param.opts[-1]] if param.is_flag else [f"{param.opts[-1]}={value}"]
    return args
