"""``charrnn train``."""

from __future__ import annotations

import dataclasses
import math
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charrnn import checkpoint
from charrnn.cli.common import (
    CHECKPOINT_DIR,
    DEFAULT_THREADS,
    check_stdin_once,
    default_run_name,
)
from charrnn.config import INHERITED, Config
from charrnn.errors import CharrnnError, CheckpointError, Exit, UsageError
from charrnn.formatting import escape_control, format_baselines, format_loss, format_threads
from charrnn.header import MOST_THREADS
from charrnn.lock import lock

if TYPE_CHECKING:
    from charrnn.corpus import Corpus
    from charrnn.training import Run, Step

COPY = 60  # characters of a sample that no one writes twice by chance
RESUMABLE = {"corpus", "val", "output", "resume", "max_steps", "stop_after", "save_every", "quiet", "threads"}


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every field of Config."""
    for f in reversed(dataclasses.fields(Config)):
        m, flags = f.metadata, ["--" + f.name.replace("_", "-")]
        if f.name == "learning_rate":
            flags.append("--lr")
        kind: Any = str
        if m["choices"]:
            kind = click.Choice(m["choices"])
        elif m["type"] is not str:
            kind = {int: click.IntRange, float: click.FloatRange}[m["type"]](m["low"], m["high"])
        command = click.option(
            *flags, f.name, type=kind, default=f.default, show_default=f.default is not None, help=m["help"]
        )(command)
    return command


@click.command()
@click.argument("corpus", nargs=-1, required=True)
@config_options
@click.option("--val", metavar="FILE", help="Validate on this text, not on a part of the corpus.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The run's file [checkpoints/CORPUS.npz].")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Begin with the weights of this run or exported model: its cell, sizes and unit hold.",
)
@click.option("--resume", is_flag=True, help="Go on with the run, with the options that it was started with.")
@click.option("--force", is_flag=True, help="Overwrite a run that exists.")
@click.option("--stop-after", type=click.IntRange(1), help="End this sitting after so many more steps.")
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Time between saves [60, or 100 times what a save takes].",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what goes wrong.")
@click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    help=f"Threads that share the lanes out [{DEFAULT_THREADS}].",
)
@click.pass_context
def train(
    ctx: click.Context,
    /,
    corpus: tuple[str, ...],
    val: str | None,
    output: Path | None,
    init_from: Path | None,
    resume: bool,
    force: bool,
    stop_after: int | None,
    save_every: float | None,
    quiet: bool,
    threads: int | None,
    **options: Any,
) -> None:
    """Train a model on CORPUS.

    CORPUS is files, folders of text files, or - for standard input, joined in the order given.

    \b
      charrnn train corpus.txt
      charrnn train src/ --cell lstm --hidden-size 512 --epochs 20
      cat *.c | charrnn train -

    The run is kept in one file; charrnn sample draws from it. Progress goes to standard error. Ctrl-C ends it with
    a save, and --resume goes on. --max-steps with --resume makes a finished run longer.
    """  # noqa: D301
    path = output or CHECKPOINT_DIR / f"{default_run_name(corpus)}.npz"
    check_stdin_once([*corpus, val])
    if resume and force:
        raise UsageError("--resume goes on with a run and --force begins anew: give one of them")
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    given = [name for name, source in sources.items() if source is ParameterSource.COMMANDLINE]
    if resume and (refused := [flag(ctx, name) for name in given if name not in RESUMABLE]):
        raise UsageError(f"{refused[0]} cannot go with --resume: the run keeps the options it was started with")
    if path.exists() and not resume and not force:
        raise UsageError(exists(path, corpus))
    signals = Signals()
    with lock(path, shlex.join(["charrnn", *sys.argv[1:]])):
        if resume:
            run = resumed(path, corpus, val, threads, options["max_steps"] if "max_steps" in given else None)
        else:
            if init_from:
                # the weights decide some of them: a default from the environment gives way, an option is refused
                chosen = {name for name, source in sources.items() if source is not ParameterSource.DEFAULT}
                chosen -= set(INHERITED) - set(given)
                options = {name: value for name, value in options.items() if name in chosen}
            run = begun(path, corpus, val, init_from, options)
            run.threads = threads or DEFAULT_THREADS
        if run.finished:
            if not quiet:
                click.echo(f"{path}: finished at step {run.step:,}; --max-steps N makes it longer", err=True)
        else:
            follow(run, path, corpus, signals, quiet, stop_after, save_every)
    if signals.caught:
        ctx.exit(128 + signals.caught)


def texts(path: Path, corpus: Sequence[str], val: str | None, config: Config) -> tuple[Corpus, Corpus | None]:
    """Read the text and the validation text of the run that is kept in ``path``."""
    from charrnn.corpus import read

    how: dict[str, Any] = {"unit": config.unit, "by": config.by, "encoding": config.encoding}
    text, other = (
        read(paths, default_run_name(paths), **how, temp_dir=path.parent) if paths else None
        for paths in (corpus, [val] if val else None)
    )
    assert text
    return text, other


def begun(path: Path, corpus: tuple[str, ...], val: str | None, init_from: Path | None, options: dict[str, Any]) -> Run:
    """Begin a run."""
    from charrnn.model import inherited, load
    from charrnn.training import Run

    origin = None
    if init_from:
        model = load(init_from)
        options, origin = inherited(model, options), model.origin(str(init_from))
    config = Config(**options)
    text, val_text = texts(path, corpus, val, config)
    run = Run(text, config, val=val_text, origin=origin)
    run.command = shlex.join(["charrnn", *sys.argv[1:]])[:10_000]  # however many files it names
    return run


def resumed(path: Path, corpus: tuple[str, ...], val: str | None, threads: int | None, max_steps: int | None) -> Run:
    """Go on with a run as it was saved."""
    from charrnn.training import Run

    header = checkpoint.read_header(path)
    if header["kind"] != "run":
        raise CheckpointError(f"{path}: weights alone, without a run to resume; --init-from {path} begins one")
    val = val or (header["corpus"]["val_files"] or [None])[0]
    text, val_text = texts(path, corpus, val, Config(**header["config"]))
    run = Run.restore(path, text, val=val_text)
    if max_steps:
        extend(run, max_steps)
    if threads and run.threads != threads:
        run.notes.append(
            f"from step {run.step:,}: {format_threads(threads)} instead of {run.threads}; "
            f"results may differ in the last bits"
        )
        run.threads = threads
    return run


def follow(
    run: Run,
    path: Path,
    corpus: Sequence[str],
    signals: Signals,
    quiet: bool,
    stop_after: int | None,
    save_every: float | None,
) -> None:
    """Train, and show it."""
    from charrnn.training import fit

    with Display(run, quiet) as display, signals:
        display.begin()
        try:
            for step in fit(
                run, path, stop_after=stop_after, save_every=save_every, stop=lambda: signals.caught is not None
            ):
                display.step(step)
        except CharrnnError:
            display.end(path, corpus, checkpoint.read_header(path)["step"] if path.exists() else None)
            raise
        display.end(path, corpus, run.step)


class Signals:
    """Ctrl-C and SIGTERM: within the context the first is noted, and a second one ends the process at once.

    Before it, either ends the command as an exception does, so that what was begun is tidied up.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.TERMINATED))

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it, or a shell's &
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None: ...

    def _note(self, number: int, _: object) -> None:
        self.caught = number
        signal.signal(number, signal.SIG_DFL)


def extend(run: Run, max_steps: int) -> None:
    planned = run.plan["steps"]
    if max_steps < planned:
        raise UsageError(f"--max-steps {max_steps}: the plan is {planned} steps; --stop-after N ends a sitting earlier")
    if max_steps > planned:
        run.extend(max_steps)


def flag(ctx: click.Context, name: str) -> str:
    return next(p.opts[0] for p in ctx.command.params if p.name == name)


def exists(path: Path, corpus: Sequence[str]) -> str:
    other = next(p for i in range(2, 10**6) if not (p := path.with_name(f"{path.stem}-{i}.npz")).exists())
    return (
        f"{path} exists already; to go on with it, to overwrite it, or to keep both:\n"
        f"  {command(corpus, path, '--resume')}\n"
        f"  {command(corpus, path, '--force')}\n"
        f"  {command(corpus, other)}"
    )


def command(corpus: Sequence[str], path: Path, *flags: str) -> str:
    output = [] if path == CHECKPOINT_DIR / f"{default_run_name(corpus)}.npz" else ["-o", str(path)]
    return shlex.join(["charrnn", "train", *corpus, *output, *flags])


class Display:
    """What a person sees of a run: a bar on a terminal, and lines; all on standard error."""

    def __init__(self, run: Run, quiet: bool) -> None:
        from tqdm import tqdm

        self.run, self.quiet = run, quiet
        self.bar = tqdm(
            total=run.characters(run.plan["steps"]),
            initial=run.characters(run.step),
            unit="ch",
            unit_scale=True,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def say(self, line: str) -> None:
        if not self.quiet:
            self.bar.write(line, file=sys.stderr)

    def begin(self) -> None:
        run, c, parts = self.run, self.run.config, self.run.corpus["parts"]
        characters = "bytes" if c.unit == "byte" else "characters"
        symbols = f" symbols, {run.ratio:.2f} to a character" if c.unit == "jamo" else ""
        self.say(
            f"{run.name}: {run.corpus['characters']:,} {characters}, {len(run.vocabulary)} distinct{symbols}; "
            f"training {parts['train']:,}, validation {parts['val']:,}, test {parts['test']:,}"
        )
        steps = run.plan["steps"]
        self.say(
            f"{c.cell} {c.num_layers}x{c.hidden_size}, {len(run.stack.p.vector):,} parameters; {run.B} lanes, "
            f"windows of {run.T}; {steps:,} steps, {steps / run.per_epoch:.1f} epochs; "
            f"{format_threads(run.threads)}"
        )
        for note in run.notes:
            self.say(note)
        if run.ladder:
            self.say(f"validation loss, nats per character, of counts: {format_baselines(run.ladder)}")
        if run.step:
            self.say(f"resumed at step {run.step:,}")

    def step(self, step: Step) -> None:
        if step.step == 1:
            V, ratio = len(self.run.vocabulary), self.run.ratio
            times = "" if f"{ratio:.2f}" == "1.00" else f"{ratio:.2f} "  # symbols to a character
            self.say(f"first loss {step.loss:.3f}, beside {times}ln {V} = {ratio * math.log(V):.3f}")
        for line in step.told:
            self.bar.write(f"charrnn: {line}", file=sys.stderr)  # what goes wrong is said to those too who want quiet
        if step.evaluation:
            self.say(evaluation(step.evaluation))
        if step.sample:
            self.say(f"sample at step {step.step:,}:\n{escaped(step.sample.removesuffix(chr(10)))}")
        if self.bar.update(step.characters):  # drawn just now: what the next drawing shows
            self.bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)

    def end(self, path: Path, corpus: Sequence[str], saved: int | None) -> None:
        from charrnn.training import LESS, longest_copy, risen

        run = self.run
        if not run.finished:
            if saved is not None:
                self.say(f"stopped at step {run.step:,} of {run.plan['steps']:,}; {path} holds step {saved:,}")
                self.say(f"go on with: {command(corpus, path, '--resume')}")
            return
        best = f"best validation loss {format_loss(run.best_loss)} at step {run.best_step:,}"
        lines = [best] if run.ladder else []
        if run.test_loss is not None:
            lines.append(f"test loss of the best weights {format_loss(run.test_loss)}")
        self.say("; ".join(lines) or f"training loss {format_loss(run.history[-1]['train_loss'])}")
        if run.trouble:
            self.say(f"not finite {len(run.trouble)} times: the learning rate was halved each time; {LESS}")
        parts = (("validation", run.ladder, run.best_loss), ("test", run.ladder_test, run.test_loss))
        for part, ladder, loss in parts:
            if ladder and loss is not None:
                self.say(f"{part} loss, nats per character: {format_baselines(ladder)}, this model {loss:.3f}")
        if (loss := risen(run)) is not None:
            self.say(
                f"the model is overfitting: validation loss rose from {format_loss(run.best_loss)} "
                f"(step {run.best_step:,}) to {format_loss(loss)} while training loss fell; "
                f"use --dropout, a smaller model or fewer steps"
            )
        if not self.quiet and (n := longest_copy(run)) >= COPY:
            self.say(
                f"the last sample holds a copy of {n:,} characters of the training text; how much is copied: "
                f"{shlex.join(['charrnn', 'overlap', str(path), *corpus])}"
            )
        self.say(f"{path} written; sample from it with: {shlex.join(['charrnn', 'sample', str(path)])}")


def evaluation(row: dict[str, Any]) -> str:
    val = "" if row["val_loss"] is None else f"  validation {format_loss(row['val_loss'])}"
    norm = "not finite" if row["grad_norm"] is None else f"{row['grad_norm']:.2f}"
    return (
        f"step {row['step']:6,}  epoch {row['epoch']:5.2f}  training {format_loss(row['train_loss'])}{val}  "
        f"norm {norm}  lr {row['learning_rate']:.2g}"
    )


def escaped(text: str) -> str:
    """Indent the lines of a sample; what would move a terminal's cursor is shown, not sent."""
    return "\n".join(f"  | {escape_control(line)}" for line in text.split("\n"))
