from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charrnn.cli import common
from charrnn.cli.choice import find_checkpoint
from charrnn.cli.common import Count, Duration, file_option, flag
from charrnn.cli.grid import parse_axis, run_grid
from charrnn.cli.progress import Display, end_lines, start_lines
from charrnn.cli.streams import print_message
from charrnn.cli.train_options import (
    FIXED_OPTIONS,
    FileOption,
    TrainCommand,
    config_options,
    read_defaults,
)
from charrnn.cluster import connect
from charrnn.config import ARCHITECTURE_OPTIONS, PRESETS, Config
from charrnn.errors import CharrnnError, UsageError
from charrnn.formatting import file_argument, shell_command
from charrnn.storage import checkpoint
from charrnn.storage.lock import lock
from charrnn.storage.output import check_output
from charrnn.storage.state import MAX_WORKERS
from charrnn.text.files import CHECKPOINT_KIND, recognize
from charrnn.training.interrupt import STOP_SIGNALS, StopRequest

if TYPE_CHECKING:
    from charrnn.cluster import Cluster
    from charrnn.text.corpus import Corpus
    from charrnn.training.recipe import Goal
    from charrnn.training.run import Run

    LoadTexts = Callable[..., tuple[Corpus, Corpus | None]]


@click.command(cls=TrainCommand)
@click.argument("corpus", nargs=-1, required=True)
@click.option(
    "--time",
    "seconds",
    type=Duration(),
    help="Choose the size of the model and the length of the run for this much time, as in 90s, "
    "10m or 1h.",
)
@click.option(
    "--preset",
    cls=FileOption,
    type=click.Choice([*PRESETS]),
    help="Choose them for this much work: medium is 5 times, large 20 times and tiny 1/10 of small "
    "[small, unless options of the model are given].",
)
@config_options
@click.option(
    "--val-file",
    cls=FileOption,
    metavar="FILE",
    help="Validate on this file instead of on a split of the corpus.",
)
@click.option(
    "--features",
    cls=FileOption,
    metavar="FILE",
    help="A .npy file of vectors, a row for each line of the text, or for each index that a line "
    "begins with: learn to write the line, or the answer after its TAB. With label and tags, a "
    "file (.npy or .npz) with a sequence of vectors for each line.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=read_defaults,
    help="Read options from a TOML file; those on the command line have precedence.",
)
@file_option(
    *("-o", "--output"),
    help="Checkpoint file to write [checkpoints/NAME.npz; NAME comes from CORPUS].",
)
@file_option(
    "--init-from",
    cls=FileOption,
    metavar="CHECKPOINT",
    help="Initialize from the weights of this checkpoint or exported model; its cell, sizes, unit, "
    "mask and dtype are used.",
)
@click.option(
    "--grid",
    type=parse_axis,
    multiple=True,
    metavar="OPTION=A,B",
    help="Make a run for each value of an option, or for each combination if given several "
    "times. Then compare the runs.",
)
@flag("--resume", help="Resume the run with its original options.")
@flag("--force", help="Overwrite an existing checkpoint.")
@click.option(
    "--stop-after",
    type=Count(1),
    help="Save and stop after N more steps; resume later with --resume.",
)
@click.option(
    "--save-every",
    type=common.Number(0),
    metavar="SECONDS",
    help="Seconds between saves [60, or 100 times the duration of the last save if that is "
    "longer].",
)
@flag(
    "--local-ids",
    help="In a cluster without a shared folder: every rank reads the text for itself.",
)
@click.option(
    "--sync-every",
    type=Count(1),
    help="In a cluster with a slow network: every rank makes N steps of its own before the weights "
    "are averaged [1: exact].",
)
@flag("-q", "--quiet", help="Print only warnings and errors.")
@click.option(
    "--workers",
    cls=FileOption,
    type=Count(1, MAX_WORKERS),
    help="Number of processes that share the work [one per core, if the batch is large enough].",
)
@click.pass_context
def train(
    ctx: click.Context,
    /,
    corpus: tuple[str, ...],
    val_file: str | None,
    features: str | None,
    output: Path | None,
    init_from: Path | None,
    preset: str | None,
    seconds: float | None,
    grid: list[tuple[str, list[str]]],
    resume: bool,
    force: bool,
    stop_after: int | None,
    save_every: float | None,
    local_ids: bool,
    sync_every: int | None,
    quiet: bool,
    workers: int | None,
    **options: Any,
) -> None:
    """Train a model on CORPUS.

    CORPUS is one or more text files, folders of text files, or - for standard input. They are
    concatenated in the order given.

    \b
      charrnn train corpus.txt
      charrnn train corpus.txt --time 10m
      charrnn train src/ --cell lstm --hidden-size 512 --epochs 20
      cat *.c | charrnn train -

    The size of the model and the length of the run are chosen for the text, unless options of
    the model are given: then the defaults below apply.

    Everything is saved in one checkpoint file, which charrnn sample reads. Progress goes to
    standard error. Ctrl-C saves and stops; --resume continues. To extend a finished run, use
    --resume with a larger --max-steps.
    """  # noqa: D301
    started = time.monotonic()
    cluster = connect()
    if seconds is not None and cluster.size > 1:
        raise UsageError("--time needs a single machine, not a cluster")
    if grid:
        if cluster.size > 1:
            raise UsageError("--grid runs on a single machine, not in a cluster")
        run_grid(ctx, grid)
        return
    path = output or default_path(corpus)
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    if features and sources["predict"] is ParameterSource.DEFAULT:
        sources["predict"] = ParameterSource.COMMANDLINE
        options["predict"] = "text"
    load_texts = functools.partial(load_corpora, path, corpus, val_file, features)
    interrupt = StopRequest(STOP_SIGNALS, process_ends=True)
    parallel = {"workers": workers, "cluster": cluster, "sync_every": sync_every}
    with ExitStack() as stack:

        def prepare() -> Run:
            """Check the files, and start or resume the run; on rank 0 alone."""
            initial = find_checkpoint(init_from) if init_from else None
            check_files(ctx, path, corpus, val_file, initial)
            stack.enter_context(lock(path, command_line()))
            if resume:
                given = sources["max_steps"] is ParameterSource.COMMANDLINE
                steps = options["max_steps"] if given else None
                return resume_run(path, load_texts, max_steps=steps, **parallel)
            goal = goal_of(preset, seconds, started)
            chosen = given_options(options, sources, initial)
            return start_run(load_texts, initial, chosen, goal, parallel)

        run = cluster.from_root(prepare)
        if cluster.size > 1:
            cluster.sync_every = run.state.sync_every
            share_text(run, path, cluster, load_texts if local_ids else None)

        # train it
        quiet = quiet or not cluster.is_root
        if not run.state.finished:
            how = {"stop_after": stop_after, "save_every": save_every, "cluster": cluster}
            train_and_show(Display(run, quiet), path, corpus, interrupt, **how)
        elif not quiet:
            at, planned = f"already finished at step {run.state.step:,}", run.plan["steps"]
            early = f" of {planned:,}, early" if run.state.step < planned else ""
            print_message(f"{path}: {at}{early}; use --max-steps N to extend it")
    if interrupt.signal_number:
        ctx.exit(128 + interrupt.signal_number)


def check_files(
    ctx: click.Context, path: Path, corpus: Sequence[str], val_file: str | None, init: Path | None
) -> None:
    """Raise UsageError for files that cannot be read or written as the options say."""
    options = ctx.params
    if options["unit"] != "byte":
        check_corpus(corpus)
    common.check_stdin_once([*corpus, val_file])
    sources = {name: ctx.get_parameter_source(name) for name in options}
    given = {name for name, source in sources.items() if source is ParameterSource.COMMANDLINE}
    if options["val_file"] and options["features"]:
        raise UsageError("--val-file cannot be combined with --features")
    if options["resume"]:
        check_resume_options(ctx, given | ({"config"} if ctx.default_map else set()))
    else:
        for name in ("preset", "max_steps", "epochs"):
            if {name, "seconds"} <= given:
                raise UsageError(f"--time and --{name.replace('_', '-')} are mutually exclusive")
        inputs = [*corpus, val_file or "", options["features"] or "", init or ""]
        check_output(path, options["force"] or path.is_file(), inputs)
    if path.is_file() and not (options["resume"] or options["force"]):
        numbered = (path.with_name(f"{path.stem}-{i}.npz") for i in range(2, 10**6))
        other = next(other for other in numbered if not other.exists())
        raise UsageError(
            f"{path} already exists; to resume it, overwrite it, or keep both:",
            f"  {train_command(corpus, path, '--resume')}",
            f"  {train_command(corpus, path, '--force')}",
            f"  {train_command(corpus, other)}",
        )


def given_options(
    options: dict[str, Any], sources: dict[str, ParameterSource | None], initial: Path | None
) -> dict[str, Any]:
    """Return the options of the run that the user has given.

    The weights of an initial model decide some: these are ignored in the environment.
    """
    default = {name for name, source in sources.items() if source is ParameterSource.DEFAULT}
    if initial:
        chosen = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
        default |= {name for name in ARCHITECTURE_OPTIONS if sources[name] not in chosen}
    return {name: value for name, value in options.items() if name not in default}


def goal_of(preset: str | None, seconds: float | None, started: float) -> Goal:
    """Return how much the user wants to spend; ``started`` is the start on the monotonic clock."""
    from charrnn.training.deadline import Deadline
    from charrnn.training.recipe import Goal

    return Goal(preset, None if seconds is None else Deadline(started + seconds))


def check_corpus(corpus: Sequence[str]) -> None:
    """Raise UsageError for a checkpoint among the texts."""
    for path in corpus:
        if recognize(path) == CHECKPOINT_KIND:
            raise UsageError(
                f"{path} is {CHECKPOINT_KIND}, not a text to train on; to start from its weights, "
                f"or to resume its run:",
                f"  charrnn train CORPUS --init-from {shell_command(path)} -o NEW.npz",
                f"  charrnn train CORPUS -o {shell_command(path)} --resume",
            )


def check_resume_options(ctx: click.Context, given: set[str]) -> None:
    """Raise UsageError for an option that cannot be given with --resume."""
    if "force" in given:
        raise UsageError("--resume and --force are mutually exclusive")
    for param in ctx.command.params:
        if param.name in given & FIXED_OPTIONS:
            raise UsageError(
                f"{param.opts[0]} cannot be used with --resume: a resumed run keeps its original "
                f"options"
            )


def default_path(corpus: Sequence[str]) -> Path:
    return common.CHECKPOINT_DIR / f"{common.default_run_name(corpus)}.npz"


def train_command(corpus: Sequence[str], path: Path, *flags: str) -> str:
    output = [] if path == default_path(corpus) else ["-o", file_argument(path)]
    return shell_command("charrnn", "train", *map(file_argument, corpus), *output, *flags)


def command_line() -> str:
    """Return the command that this process runs, as a shell would read it."""
    return shell_command("charrnn", *sys.argv[1:])


def load_corpora(
    path: Path,
    corpus: Sequence[str],
    val_file: str | None,
    features: str | None,
    c: Config,
    recorded: Collection[str] = (),
    recorded_features: Path | None = None,
) -> tuple[Corpus, Corpus | None]:
    """Read the corpus and the validation file, if there is one, of the run saved in ``path``."""
    from charrnn.tasks.base import load_task

    def load(paths: Sequence[str]) -> Corpus:
        own: list[Path] = [path, common.CHECKPOINT_DIR]
        files: dict[str, Any] = {"temp_dir": path.parent, "own": own, "recorded": recorded}
        if features or recorded_features:
            files["features"] = Path(features) if features else recorded_features
        name = common.default_run_name(paths)
        return load_task(c).read(name, c, paths=paths, **files)

    return load(corpus), load([val_file]) if val_file else None


def start_run(
    load_texts: LoadTexts,
    init_from: Path | None,
    options: dict[str, Any],
    goal: Goal,
    parallel: dict[str, Any],
) -> Run:
    from charrnn.trainer import begin_with_recipe, load_initial_model

    initial_model = None
    if init_from:
        initial_model, options = load_initial_model(init_from, options)
    text, val = load_texts(Config(**options))
    more: dict[str, Any] = {"initial_model": initial_model, "command": command_line()}
    return begin_with_recipe(text, options, goal, val=val, **more, **parallel)


def resume_run(path: Path, load_texts: LoadTexts, **how: Any) -> Run:
    from charrnn.training.run import require_run, resume
    from charrnn.training.splits import find_features

    state = require_run(checkpoint.read_state(path), path)
    files = (checkpoint.find_file(path, name) for name, _, _ in state.corpus["files"])
    recorded = {os.path.realpath(file) for file in files if isinstance(file, Path)}
    text, val = load_texts(state.config, recorded, find_features(state, path))
    if text.skipped:
        print_message(
            f"charrnn: skipped in folders: {', '.join(text.skipped[: common.SHOWN_FILES])}"
        )
    if state.val_corpus and not val:
        print_message(f"charrnn: the run's text is {common.format_files(state, path)}")
    return resume(path, text, val=val, **how)


def share_text(run: Run, path: Path, cluster: Cluster, load_texts: LoadTexts | None) -> None:
    """Give every rank the training text and its lanes of the hidden state.

    A large text is a file that rank 0 writes next to the checkpoint; with ``load_texts`` every rank
    reads the text for itself. Raises ClusterError, UsageError.
    """
    if load_texts and run.config.unit == "word":
        raise UsageError("--local-ids cannot be combined with --unit word: use a shared folder")
    store, shared = run.splits.train.store, path.with_name(f".{path.name}.text")
    try:
        if load_texts is None:
            is_file = cluster.from_root(lambda: store.publish(shared))
            cluster.on_others(lambda: store.open(shared) if is_file else None)
        else:
            load = load_texts
            cluster.on_others(lambda: read_own_text(run, load))
    finally:
        if cluster.is_root:
            shared.unlink(missing_ok=True)
    run.hidden_state = run.hidden_state[..., cluster.lanes(run.hidden_state.shape[-1])].copy()


def read_own_text(run: Run, load_texts: LoadTexts) -> None:
    """Read the text again, on another rank than 0."""
    text, _ = load_texts(run.config)
    if text.sha256 != run.state.corpus["sha256"]:
        raise UsageError(f"{text.name}: not the text that rank 0 has read")
    run.splits.train.store = text.store


def train_and_show(
    display: Display, path: Path, corpus: Sequence[str], interrupt: StopRequest, **how: Any
) -> None:
    """Train the run, and show its progress."""
    from charrnn.training.loop import train_with_saves

    run, how["stop"] = display.run, interrupt

    def stop_lines(saved_step: int) -> Iterator[str]:
        yield (
            f"stopped at step {run.state.step:,} of {run.plan['steps']:,}; "
            f"{path} was saved at step {saved_step:,}"
        )
        val = run.state.val_corpus
        on_stdin = val is not None and val["files"][0][0] == "-"
        again = ["--val-file", "-"] if on_stdin else []  # standard input cannot be read again
        yield "resume with:"
        yield f"  {train_command(corpus, path, '--resume', *again)}"

    with interrupt:
        display.print(start_lines(run))
        try:
            with display:
                for step in train_with_saves(run, path, **how):
                    display.update(step)
        except CharrnnError:
            if path.exists():
                display.print(stop_lines(checkpoint.read_state(path).step))
            raise
        finished = run.state.finished
        display.print(end_lines(run, path, corpus) if finished else stop_lines(run.state.step))
