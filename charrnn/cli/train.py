"""``charrnn train``."""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charrnn import checkpoint
from charrnn.cli.checkpoints import FOLDER
from charrnn.cli.threads import THREADS, set_threads, told
from charrnn.config import Config
from charrnn.corpus import name_of, read
from charrnn.errors import CharrnnError, UsageError

if TYPE_CHECKING:
    from charrnn.training import Run, Step

RESUMABLE = {"corpus", "output", "resume", "max_steps", "stop_after", "quiet", "threads"}


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every field of Config."""
    for f in reversed(dataclasses.fields(Config)):
        m, flags = f.metadata, ["--" + f.name.replace("_", "-")]
        if f.name == "learning_rate":
            flags.append("--lr")
        kind: Any = click.Choice(m["choices"])
        if not m["choices"]:
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
@click.option("--resume", is_flag=True, help="Go on with the run, with the options that it was started with.")
@click.option("--force", is_flag=True, help="Overwrite a run that exists.")
@click.option("--stop-after", type=click.IntRange(1), help="End this sitting after so many more steps.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what goes wrong.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    help=f"Threads that share the lanes out [{THREADS}].",
)
@click.pass_context
def train(
    ctx: click.Context,
    /,
    corpus: tuple[str, ...],
    val: str | None,
    output: Path | None,
    resume: bool,
    force: bool,
    stop_after: int | None,
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

    The run is kept in one file; charrnn sample draws from it. Progress goes to standard error. --max-steps with
    --resume makes a finished run longer.
    """  # noqa: D301
    path = output or FOLDER / f"{name_of(corpus)}.npz"
    if [*corpus, val].count("-") > 1:
        raise UsageError("- stands for standard input, which can be read only once")
    if resume and force:
        raise UsageError("--resume goes on with a run and --force begins anew: give one of them")
    given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    header: checkpoint.Header = {}
    if resume:
        header = checkpoint.read_header(path)
        if refused := [flag(ctx, name) for name in given if name not in RESUMABLE]:
            raise UsageError(f"{refused[0]} cannot go with --resume: the run keeps the options it was started with")
        val = ((header.get("corpus") or {}).get("val_files") or [None])[0]
        kept = header.get("threads")
        threads = threads or (kept if isinstance(kept, int) and kept > 0 else None)
    elif path.exists() and not force:
        raise UsageError(exists(path, corpus))
    threads = threads or THREADS
    set_threads(1)

    from charrnn.training import Run, fit

    text, val_text = read(corpus), read([val]) if val else None
    if resume:
        run = Run.restore(path, text, val=val_text)
        if "max_steps" in given:
            extend(run, options["max_steps"])
        if run.threads != threads:
            run.notes.append(
                f"from step {run.step:,} on with {told(threads)}, not {run.threads}: the last bits may differ"
            )
    else:
        run = Run(text, Config(**options), val=val_text)
        run.command = shlex.join(["charrnn", *sys.argv[1:]])
    run.threads = threads
    if run.finished:
        if not quiet:
            click.echo(f"{path}: finished at step {run.step:,}; --max-steps N makes it longer", err=True)
        return
    with Display(run, quiet) as display:
        display.begin()
        try:
            for step in fit(run, path, stop_after):
                display.step(step)
        except (CharrnnError, KeyboardInterrupt) as e:
            saved = checkpoint.read_header(path)["step"] if path.exists() else None
            display.end(path, corpus, saved)
            raise e
        display.end(path, corpus, run.step)


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
    output = [] if path == FOLDER / f"{name_of(corpus)}.npz" else ["-o", str(path)]
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
        self.say(
            f"{run.name}: {run.corpus['characters']:,} characters, {len(run.vocabulary)} distinct; "
            f"training {parts['train']:,}, validation {parts['val']:,}, test {parts['test']:,}"
        )
        steps = run.plan["steps"]
        self.say(
            f"{c.cell} {c.num_layers}x{c.hidden_size}, {len(run.stack.p.vector):,} parameters; {run.B} lanes, "
            f"windows of {run.T}; {steps:,} steps, {steps / run.per_epoch:.1f} epochs; "
            f"{told(run.threads)}"
        )
        for note in run.notes:
            self.say(note)
        if run.ladder:
            self.say(f"validation loss, nats per character, of counts: {ladder(run)}")
        if run.step:
            self.say(f"resumed at step {run.step:,}")

    def step(self, step: Step) -> None:
        if step.step == 1:
            V = len(self.run.vocabulary)
            self.say(f"first loss {step.loss:.3f}, beside ln {V} = {math.log(V):.3f}")
        if step.evaluation:
            self.say(evaluation(step.evaluation))
        if step.sample:
            self.say(f"sample at step {step.step:,}:\n{escaped(step.sample)}")
        if self.bar.update(step.characters):  # drawn just now: what the next drawing shows
            self.bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)

    def end(self, path: Path, corpus: Sequence[str], saved: int | None) -> None:
        run = self.run
        if not run.finished:
            if saved is not None:
                self.say(f"stopped at step {run.step:,} of {run.plan['steps']:,}; {path} holds step {saved:,}")
                self.say(f"go on with: {command(corpus, path, '--resume')}")
            return
        best = f"best validation loss {both(run.best_loss)} at step {run.best_step:,}"
        lines = [best] if run.ladder else []
        if run.test_loss is not None:
            lines.append(f"test loss of the best weights {both(run.test_loss)}")
        self.say("; ".join(lines) or f"training loss {both(run.history[-1]['train_loss'])}")
        if run.ladder:
            self.say(f"validation loss, nats per character: {ladder(run)}, this model {run.best_loss:.3f}")
        self.say(f"{path} written; sample from it with: {shlex.join(['charrnn', 'sample', str(path)])}")


def both(nats: float) -> str:
    return f"{nats:.4f} nats ({nats / math.log(2):.3f} bits)"


def ladder(run: Run) -> str:
    return ", ".join(f"{name} {loss:.3f}" for name, loss in run.ladder.items())


def evaluation(row: dict[str, Any]) -> str:
    val = "" if row["val_loss"] is None else f"  validation {both(row['val_loss'])}"
    return (
        f"step {row['step']:6,}  epoch {row['epoch']:5.2f}  training {both(row['train_loss'])}{val}  "
        f"norm {row['grad_norm']:.2f}  lr {row['learning_rate']:.2g}"
    )


def escaped(text: str) -> str:
    """Indent the lines of a sample; what would move a terminal's cursor is shown, not sent."""
    lines = ("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in text.split("\n"))
    return "\n".join(f"  | {line}" for line in lines)
