"""Training: a generator of steps, what is saved of a run, and how it resumes."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from charrnn import checkpoint, ngram
from charrnn.arrays import Array, Ids
from charrnn.config import Config
from charrnn.corpus import Corpus, split
from charrnn.errors import CheckpointError, NotFiniteError, TextError, UsageError
from charrnn.optim import OPTIMIZERS, SCHEDULES, clip
from charrnn.sampling import sample
from charrnn.scoring import WARM_UP, score
from charrnn.stack import Stack
from charrnn.team import Team
from charrnn.version import __version__
from charrnn.vocabulary import Vocabulary
from charrnn.windows import Position, Window, lane_length, shrink, windows

# What a random number is for: each use has its own generator, default_rng([seed, purpose, step]), so that none
# disturbs another, and the seed and the step are all that a file must keep.
INIT, DROPOUT, SAMPLE = range(3)

DEFAULT_CHARACTERS = 10_000_000
SAMPLE_LENGTH, SAMPLE_LINES = 200, 8  # whichever comes first
SAMPLE_TEMP = 0.8
LESS = "a lower --learning-rate or --clip-norm may help"


class Step(NamedTuple):
    """One update: what the bar shows, and the evaluation and the sample where the plan had one."""

    step: int
    characters: int  # in this window
    loss: float  # mean over the window, nats per character
    evaluation: dict[str, Any] | None
    sample: str | None


class Run:
    """A model in training: everything that its file holds, and the text.

    ``header`` and ``arrays`` are the file's two halves; ``restore`` makes the same run of them again.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: Config,
        *,
        val: Corpus | None = None,
        saved: checkpoint.Header | None = None,
    ) -> None:
        """Begin a run; ``val`` is a validation text of its own. Raises TextError.

        With ``saved``, the header of a file that this run is to become, nothing is drawn or counted.
        """
        self.config, self.name = config, corpus.name
        self.vocabulary = Vocabulary.of(corpus.text + (val.text if val else ""))
        self._text(corpus, val)

        N, c = len(self.train), config
        self.B, self.T = shrink(N, c.batch_size, c.seq_length)
        self.per_epoch = math.ceil(lane_length(N, self.B) / self.T)
        self.notes: list[str] = []
        if corpus.skipped:
            names = ", ".join(corpus.skipped[:10]) + (", ..." if len(corpus.skipped) > 10 else "")
            self.notes.append(f"left out, not UTF-8 text: {len(corpus.skipped)} files ({names})")
        if (c.batch_size, c.seq_length) != (self.B, self.T):
            self.notes.append(
                f"a small text: {self.B} lanes and windows of {self.T}, not {c.batch_size} and {c.seq_length}"
            )
        if not len(self.val):
            self.notes.append("no validation part: the last weights count as the best")

        dtype = np.dtype(c.dtype)
        self.stack = Stack(
            c.cell,
            len(self.vocabulary),
            c.hidden_size,
            c.num_layers,
            dtype,
            None if saved else np.random.default_rng([c.seed, INIT]),
        )
        n = len(self.stack.p.vector)
        self.memory: Array = np.zeros((OPTIMIZERS[c.optimizer].rows, n), dtype)
        self.state = self.stack.zero_state(self.B)
        self.position = Position()
        self.step = 0
        self.seconds = 0.0
        self._best, self._best_step, self.best_loss = self.stack.p.vector.copy(), 0, math.inf
        self.test_loss: float | None = None
        self.first_loss: float | None = None
        self.recent: list[float] = []  # the loss of each step since the last evaluation
        self.ladder: dict[str, float] = {}
        if saved:
            self.ladder = saved["ladder"]
        elif len(self.val):
            self.ladder = ngram.ladder(self.train, self.val, self.val_context, len(self.vocabulary))
        self.history: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.plans: list[dict[str, int]] = []
        self.threads, self.command = 1, ""
        self._plan()

    def _text(self, corpus: Corpus, val: Corpus | None) -> None:
        c, ids = self.config, self.vocabulary.encode(corpus.text)
        a, b = split(len(ids), 0 if val else c.val_fraction, c.test_fraction)
        self.train, self.test, self.test_context = ids[:a], ids[b:], ids[max(b - WARM_UP, 0) : b]
        if val:
            self.val = self.vocabulary.encode(val.text)
            self.val_context: Ids = self.vocabulary.encode(self.vocabulary.start)
        else:
            self.val, self.val_context = ids[a:b], ids[max(a - WARM_UP, 0) : a]
        if len(self.train) < 2:
            raise TextError(f"{corpus.name}: nothing is left to train on; lower the other parts' shares")
        self.corpus: dict[str, Any] = {
            "name": corpus.name,
            "files": corpus.files,
            "bytes": corpus.bytes,
            "characters": len(corpus.text),
            "sha256": corpus.sha256,
            "val_files": val.files if val else None,
            "val_sha256": val.sha256 if val else None,
            "parts": {"train": len(self.train), "val": len(self.val), "test": len(self.test)},
        }

    def _plan(self) -> None:
        """Lay down how long the run is, and with it the schedule and when to evaluate."""
        c = self.config
        ends = [c.max_steps] if c.max_steps else []
        if c.epochs is not None:
            ends.append(max(1, math.ceil(c.epochs * self.per_epoch)))
        # by the windows asked for: a small text, whose windows shrink, takes no more steps than a large one
        steps = min(ends) if ends else math.ceil(DEFAULT_CHARACTERS / (c.batch_size * c.seq_length))
        self.plans.append(
            {
                "from_step": self.step,
                "steps": steps,
                "eval_every": c.eval_every or math.ceil(steps / 20),
                "sample_every": math.ceil(steps / 10) if c.sample_every is None else c.sample_every,
            }
        )

    @property
    def best(self) -> Array:
        """The weights with the lowest validation loss; the last ones where none has been measured."""
        return self._best if math.isfinite(self.best_loss) else self.stack.p.vector

    @property
    def best_step(self) -> int:
        """The step of the best weights."""
        return self._best_step if math.isfinite(self.best_loss) else self.step

    @property
    def plan(self) -> dict[str, int]:
        """The plan in force: its ``steps``, ``eval_every`` and ``sample_every``, and since when."""
        return self.plans[-1]

    @property
    def finished(self) -> bool:
        """Whether the plan is done."""
        return self.step >= self.plan["steps"]

    @property
    def epoch(self) -> float:
        """Passes made over the training part."""
        return self.step / self.per_epoch

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        rate = self.config.learning_rate
        assert rate is not None
        return rate * SCHEDULES[self.config.schedule](self.step / self.plan["steps"])

    def characters(self, step: int) -> int:
        """Return how many characters are read in the first ``step`` steps."""
        length = lane_length(len(self.train), self.B)
        epochs, rest = divmod(step, self.per_epoch)
        return self.B * (epochs * length + min(rest * self.T, length))

    def extend(self, max_steps: int) -> None:
        """Make a new plan that ends at ``max_steps``, from the present step on."""
        self.config = dataclasses.replace(self.config, max_steps=max_steps, epochs=None)
        self._plan()
        self.test_loss = None

    def header(self) -> checkpoint.Header:
        """Return all that is not an array, as JSON can hold it; ``charrnn info --json`` prints it."""
        return {
            "kind": "run",
            "charrnn": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "threads": self.threads,
            "command": self.command,
            "config": dataclasses.asdict(self.config),
            "vocabulary": {
                "size": len(self.vocabulary),
                "symbols": self.vocabulary.symbols,
                "start": self.vocabulary.start,
            },
            "parameters": len(self.stack.p.vector),
            "corpus": self.corpus,
            "windows": {"lanes": self.B, "length": self.T, "per_epoch": self.per_epoch},
            "plans": self.plans,
            "step": self.step,
            "epoch": self.epoch,
            "finished": self.finished,
            "position": self.position,
            "seconds": round(self.seconds, 3),
            "best": {
                "step": self.best_step,
                "val_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            },
            "test_loss": self.test_loss,
            "first_loss": self.first_loss,
            "recent": self.recent,
            "ladder": self.ladder,
            "notes": self.notes,
            "history": self.history,
            "samples": self.samples,
        }

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of the file: both weights, the optimizer's memory, the carried state."""
        return {"best": self.best, "last": self.stack.p.vector, "memory": self.memory, "state": self.state}

    def save(self, path: Path) -> None:
        """Write the run's file. Raises SaveError."""
        checkpoint.save(path, self.header(), self.arrays())

    @classmethod
    def restore(cls, path: Path, corpus: Corpus, *, val: Corpus | None = None) -> Run:
        """Return the run as it was saved. Raises CheckpointError, also when the text is another one."""
        header, arrays = checkpoint.load(path)
        if header.get("kind") != "run":
            raise CheckpointError(f"{path}: weights alone, without a run to resume")
        try:
            was = header["corpus"]
            if (was["sha256"], was["val_sha256"]) != (corpus.sha256, val.sha256 if val else None):
                raise CheckpointError(
                    f"{path}: trained on another text than {corpus.name} is now ({was['characters']:,} characters "
                    f"then, {len(corpus.text):,} now); --output FILE trains a new run"
                )
            run = cls(corpus, Config(**header["config"]), val=val, saved=header)
            for array, saved in (
                (run.stack.p.vector, arrays["last"]),
                (run._best, arrays["best"]),
                (run.memory, arrays["memory"]),
                (run.state, arrays["state"]),
            ):
                if array.shape != saved.shape or array.dtype != saved.dtype:
                    raise CheckpointError(f"{path}: damaged: an array of the wrong shape or type")
                array[...] = saved
            run.plans, run.step, run.position = header["plans"], header["step"], Position(*header["position"])
            run._best_step = header["best"]["step"]
            run.best_loss = math.inf if header["best"]["val_loss"] is None else header["best"]["val_loss"]
            run.seconds, run.recent, run.notes = header["seconds"], header["recent"], header["notes"]
            run.test_loss, run.first_loss = header["test_loss"], header["first_loss"]
            run.history, run.samples = header["history"], header["samples"]
            run.threads, run.command = header["threads"], header["command"]
        except (KeyError, TypeError, UsageError) as e:
            raise CheckpointError(f"{path}: damaged: {e!r} in its header") from None
        return run


def steps(run: Run) -> Iterator[Step]:
    """Train to the end of the plan, a window at a time; after each step the run may be saved.

    Truncated backpropagation through time (Williams and Peng, 1990): the state is carried from window to window,
    the gradient is not. It is that of the mean loss over the window. At the planned steps the validation part
    is scored and a sample drawn. Raises NotFiniteError before an update that would spoil the weights.
    """
    team = Team(run.stack, run.T, run.B, run.threads)
    _, _, H, L = run.stack.shape
    masks = np.empty((L, run.T, H, run.B), run.stack.p.vector.dtype) if run.config.dropout else None
    for window in windows(run.train, run.B, run.T, run.position):
        if run.finished:
            return
        yield _step(run, window, team, masks)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # what is not finite is found and told
def _step(run: Run, window: Window, team: Team, masks: Array | None) -> Step:
    c, stack = run.config, run.stack
    began = time.perf_counter()
    T, B = window.xs.shape
    if window.fresh.any():
        run.state[..., window.fresh] = 0
    if masks is not None:
        rng = np.random.default_rng([c.seed, DROPOUT, run.step])
        masks = stack.masks(rng, T, B, 1 - c.dropout, masks if T == run.T else None)
    loss = team.loss_and_grad(window.xs, window.ys, run.state, masks)
    norm = clip(stack.d.vector, c.clip_norm, c.clip_value)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise NotFiniteError(
            f"the loss is {loss:.4g} and the gradient's norm {norm:.4g} at step {run.step + 1}; {LESS}"
        )
    lr = run.learning_rate
    OPTIMIZERS[c.optimizer].update(stack.p.vector, stack.d.vector, lr, run.step + 1, run.memory)
    run.position, run.step = window.position, run.step + 1
    run.recent.append(loss)
    if run.first_loss is None:
        run.first_loss = loss
    run.seconds += time.perf_counter() - began
    return Step(run.step, T * B, loss, _evaluation(run, norm, lr), _sample(run))


def fit(run: Run, path: Path | None, stop_after: int | None = None) -> Iterator[Step]:
    """Train, and save to ``path`` at the start, at every evaluation and at the end.

    ``stop_after`` ends this sitting after that many more steps; the plan stays as it is. Raises what ``steps``
    and ``Run.save`` raise; the file then is the last that was saved.
    """

    def save() -> int:
        if not np.isfinite(run.stack.p.vector).all():
            raise NotFiniteError(f"a weight is not finite after step {run.step}; {LESS}")
        if path:
            run.save(path)
        return run.step

    last = run.step + stop_after if stop_after else math.inf
    saved = save()
    for step in steps(run):
        if step.evaluation:
            saved = save()
        yield step
        if step.step >= last:
            break
    if saved != run.step:
        save()


def _due(run: Run, every: int) -> bool:
    return run.finished or (every > 0 and run.step % every == 0)


def _evaluation(run: Run, norm: float, lr: float) -> dict[str, Any] | None:
    if not _due(run, run.plan["eval_every"]):
        return None
    val_loss = None
    if len(run.val):
        val_loss = float(score(run.stack, run.val, run.val_context, run.threads).mean())
        if not math.isfinite(val_loss):
            raise NotFiniteError(f"the validation loss is {val_loss} at step {run.step}; {LESS}")
        if val_loss < run.best_loss:
            run._best[:] = run.stack.p.vector
            run._best_step, run.best_loss = run.step, val_loss
    row = {
        "step": run.step,
        "epoch": run.epoch,
        "train_loss": math.fsum(run.recent) / len(run.recent),
        "val_loss": val_loss,
        "grad_norm": norm,
        "learning_rate": lr,
        "characters": run.characters(run.step),
        "seconds": round(run.seconds, 3),
    }
    run.history.append(row)
    run.recent.clear()
    if run.finished and len(run.test):
        best = run.stack.copy()
        best.p.vector[:] = run.best
        run.test_loss = float(score(best, run.test, run.test_context, run.threads).mean())
    return row


def _sample(run: Run) -> str | None:
    # the first one after a single step: noise, to begin with
    every = run.plan["sample_every"]
    if not every or not (run.step == 1 or _due(run, every)):
        return None
    rng = np.random.default_rng([run.config.seed, SAMPLE, run.step])
    text = ""
    for ids in sample(run.stack, run.vocabulary, rng, temp=SAMPLE_TEMP):
        text += run.vocabulary.decode(ids)
        if len(text) == SAMPLE_LENGTH or text.count("\n") == SAMPLE_LINES:
            break
    run.samples.append({"step": run.step, "text": text})
    return text
