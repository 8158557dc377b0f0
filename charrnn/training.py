"""Training: a generator of steps, what is saved of a run, and how it resumes."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from charrnn import checkpoint, ngram, scoring, units
from charrnn.arrays import Array, Ids
from charrnn.cells import load_cell
from charrnn.config import Config
from charrnn.copied import code_view, longest_matches, match_lengths
from charrnn.corpus import (
    MAX_EVAL_CHARACTERS,
    MAX_LISTED_FILES,
    MIN_EVAL_CHARACTERS,
    Corpus,
    EncodedSlice,
    split_offsets,
)
from charrnn.errors import CheckpointError, NotFiniteError, SaveError, TextError
from charrnn.header import Header
from charrnn.optim import OPTIMIZERS, SCHEDULES, clip
from charrnn.sampling import decode_stream, generate_ids
from charrnn.scoring import WARM_UP_SYMBOLS
from charrnn.stack import Stack, num_parameters
from charrnn.team import DataParallel
from charrnn.units import FIRST_SPECIAL, FIRST_TAIL, UNKNOWN, Codes
from charrnn.version import __version__
from charrnn.vocabulary import Vocabulary
from charrnn.windows import (
    Batch,
    Position,
    batches_per_epoch,
    contiguous_batches,
    document_batches,
    document_ends,
    fit_batch_shape,
    steps_per_lane,
)

# What a random number is for: each use has its own generator, default_rng([seed, purpose, step]), so that none
# disturbs another, and the seed and the step are all that a file must keep.
INIT, DROPOUT, SAMPLE, ORDER = range(4)

DEFAULT_SYMBOLS = 10_000_000
COUNTED = 2_000_000  # symbols of the training part that the counts are made on: memory must not grow with the text
LARGE_VOCABULARY = 2000
SAMPLE_LENGTH, SAMPLE_LINES = 200, 8  # whichever comes first
SAMPLE_TEMP = 0.8
IN_A_ROW, TROUBLES = 3, 10  # windows that are not finite: until the best weights are restored, and until the run stops
RISEN = 1.05  # times the best validation loss: above it, the model is learning by heart
SEARCHED = 5_000_000  # symbols of the training part that the last sample is compared with
ROWS, SAMPLES = 10_000, 1000  # that a file's header holds; beyond, every second of the older ones goes
SAVE_EVERY, SAVING = 60.0, 100.0  # seconds between saves, and how many times the last save's at least
LESS = "a lower --learning-rate or --clip-norm may help"


class Step(NamedTuple):
    """One update: what the bar shows, and the evaluation and the sample where the plan had one."""

    step: int
    characters: int  # in this window
    loss: float  # mean over the window, nats per character; may be not finite, and then there was no update
    evaluation: dict[str, Any] | None
    sample: str | None
    told: tuple[str, ...] = ()  # what went wrong, and what was done about it


class Origin(NamedTuple):
    """The model that a run begins with: its weights, its symbols, and the file it is from."""

    stack: Stack
    vocabulary: Vocabulary
    file: str
    sha256: str | None


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
        saved: Header | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Begin a run; ``val`` is a validation text of its own, ``origin`` what the weights are taken from.

        With ``saved``, the header of a file that this run is to become, nothing is drawn or counted. Raises TextError.
        """
        self.config, self.name = config, corpus.name
        self.notes: list[str] = [*corpus.notes, *(val.notes if val else [])]
        if saved:
            self.vocabulary = Vocabulary.from_header(saved["vocabulary"], config.unit)
        else:
            self._vocabulary(corpus, val, origin)
        self._text(corpus, val)

        N, c = len(self.train), config
        self.ends = document_ends(self.train, self.border) if c.documents and self.border is not None else None
        if self.ends is None:
            self.B, self.T = fit_batch_shape(N, c.batch_size, c.seq_length)
            self.per_epoch = math.ceil(steps_per_lane(N, self.B) / self.T)
        else:
            longest = int(np.diff(self.ends, prepend=0).max())
            self.B, self.T = min(c.batch_size, len(self.ends)), min(c.seq_length, longest)
            self.per_epoch = batches_per_epoch(self.ends, self.B, self.T)
        if corpus.skipped:
            names = ", ".join(corpus.skipped[:10]) + (", ..." if len(corpus.skipped) > 10 else "")
            self.notes.append(f"left out, not {corpus.encoding.upper()} text: {len(corpus.skipped)} files ({names})")
        if self.ends is not None:
            self.notes.append(
                f"{len(self.ends):,} {c.documents}s to train on, each begun afresh; "
                f"{self.per_epoch:,} windows to an epoch"
            )
        elif (c.batch_size, c.seq_length) != (self.B, self.T):
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
        if len(self.vocabulary) > LARGE_VOCABULARY and not saved:
            share = sum(self.stack.p[name].size for name in ("0.Wxh", "Why", "by")) / n
            self.notes.append(
                f"{len(self.vocabulary):,} symbols take {share:.0%} of the parameters, and most of the time: "
                f"--max-vocab N or --min-count N reads the rare ones as one, --unit byte (for Hangul: jamo) has few"
            )
        if origin:
            self.stack.load_weights_from(origin.stack, self.vocabulary.ids_of(origin.vocabulary.codes))
        self.memory: Array = np.zeros((OPTIMIZERS[c.optimizer].num_moments, n), dtype)
        self.state = self.stack.zero_state(self.B)
        self.position = Position()
        self.step = self.read = 0
        self.seconds = 0.0
        # what is gone back to: the best weights, or while there are none those of the last evaluation or of the start
        self._best, self._best_step, self.best_loss = self.stack.p.vector.copy(), 0, math.inf
        self.test_loss: float | None = None
        self.first_loss: float | None = None
        self.recent = {"sum": 0.0, "steps": 0}  # since the last evaluation
        self.trouble: list[dict[str, Any]] = []  # each halved the learning rate
        self.streak = 0  # windows in a row that were not finite
        self.ladder: dict[str, float] = saved["baselines"]["val"] if saved else {}
        self.ladder_test: dict[str, float] = saved["baselines"]["test"] if saved else {}
        if not saved:
            self._ladders()
        self.history: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.plans: list[dict[str, int]] = []
        self.threads, self.command = 1, ""
        self.saved = False  # whether the file holds this plan
        self._plan()

    def _vocabulary(self, corpus: Corpus, val: Corpus | None, origin: Origin | None) -> None:
        """Count what there is; with ``origin``, add what it knows."""
        c, stores = self.config, [corpus.store, *([val.store] if val else [])]
        codes, index = np.unique(np.concatenate([store.codes for store in stores]), return_inverse=True)
        counts = np.bincount(index, np.concatenate([store.counts for store in stores])).astype(np.int64)
        new = Vocabulary.from_counts(codes, counts, c.unit, c.min_count, c.max_vocab)
        if new.id(UNKNOWN) is not None:
            rare = new.ids_of(codes) == new.id(UNKNOWN)
            self.notes.append(
                f"{rare.sum():,} rare symbols, {counts[rare].sum() / counts.sum():.2%} of the text, "
                f"are read as one unknown symbol, which is never drawn"
            )
        self.init_from: dict[str, Any] | None = None
        self.vocabulary = new
        if origin:
            old = origin.vocabulary.codes
            matched, added = (new.codes[np.isin(new.codes, old, invert=invert)] for invert in (False, True))
            unused = old[~np.isin(old, new.codes)]
            self.init_from = {"file": origin.file, "sha256": origin.sha256}
            self.init_from |= {"matched": len(matched), "added": len(added), "unused": len(unused)}
            self.notes.append(
                f"weights from {origin.file}: {len(matched):,} symbols matched, {_some(added, c.unit)} added, "
                f"{_some(unused, c.unit)} of the model's unused here"
            )
            self.vocabulary = Vocabulary([*new.codes, *old], new.start_symbol, c.unit)

    def _text(self, corpus: Corpus, val: Corpus | None) -> None:
        c, store = self.config, corpus.store
        table = self.vocabulary.ids_of(store.codes)
        everything = EncodedSlice(store, table, 0, len(store))
        self.border = self.vocabulary.separator_id(c.documents)
        a, b = split_offsets(corpus.characters, 0 if val else c.val_fraction, c.test_fraction)
        a, b = (self._edge(everything, corpus.symbol_offset(n), len(store)) for n in (a, b))
        if b < len(store) and len(store) - b < MIN_EVAL_CHARACTERS:
            b = len(store)
        if a < b and b - a < MIN_EVAL_CHARACTERS:
            a = b
        self.train = EncodedSlice(store, table, 0, a)
        self.test, self.test_context = everything[b:], everything[max(b - WARM_UP_SYMBOLS, 0) : b]
        self.val: Ids = everything[a:b]
        self.val_context: Ids = everything[max(a - WARM_UP_SYMBOLS, 0) : a]
        val_characters = corpus.count_characters(a, b)
        if val:
            end = val.symbol_offset(MAX_EVAL_CHARACTERS) if val.characters > MAX_EVAL_CHARACTERS else len(val.store)
            self.val = EncodedSlice(val.store, self.vocabulary.ids_of(val.store.codes), 0, end)[:]
            self.val_context, val_characters = self.vocabulary.start_id, val.count_characters(0, end)
            if end < len(val.store):
                self.notes.append(f"validation on the first {MAX_EVAL_CHARACTERS:,} characters of {val.name}")
        if len(self.train) < 2:
            raise TextError(f"{corpus.name}: nothing is left to train on; lower the other parts' shares")
        self.parts = {
            "train": corpus.count_characters(0, a),
            "val": val_characters,
            "test": corpus.count_characters(b, len(store)),
        }
        # losses are told for each character: with letters of Hangul there are several symbols to one
        self.ratio = len(self.train) / self.parts["train"]
        self.corpus: dict[str, Any] = {
            **corpus.describe(),
            "val_files": [name for name, _, _ in val.files[:MAX_LISTED_FILES]] if val else None,
            "val_sha256": val.sha256 if val else None,
            "split_characters": self.parts,
        }

    def _ladders(self) -> None:
        """Measure what counts make of the validation and the test part, in nats per character."""
        parts = [
            (self.ladder, self.parts["val"], self.val, self.val_context),
            (self.ladder_test, self.parts["test"], self.test, self.test_context),
        ]
        parts = [part for part in parts if len(part[2])]
        if not parts:
            return
        if len(self.train) > COUNTED:
            self.notes.append(f"the counts are those of the first {COUNTED:,} symbols")
        V = len(self.vocabulary)
        for ladder, characters, ids, _ in parts:
            ladder["uniform"] = math.log(V) * len(ids) / characters
        scores = ngram.ngram_losses(self.train[:COUNTED], [(ids, context) for *_, ids, context in parts], V)
        for n, losses in enumerate(scores, 1):
            for (ladder, characters, *_), nats in zip(parts, losses, strict=True):
                ladder[f"{n}-gram"] = float(nats.sum() / characters)

    def _edge(self, ids: EncodedSlice, at: int, end: int) -> int:
        """Return the first border at or after a place, if one is near: a part holds whole documents if it can."""
        if self.border is None or not 0 < at < end:
            return at
        near = np.flatnonzero(ids[at - 1 : at + MAX_EVAL_CHARACTERS // 10] == self.border)
        return at + int(near[0]) if len(near) else at

    def _plan(self) -> None:
        """Lay down how long the run is, and with it the schedule and when to evaluate."""
        c = self.config
        ends = [c.max_steps] if c.max_steps else []
        if c.epochs is not None:
            ends.append(max(1, math.ceil(c.epochs * self.per_epoch)))
        # by the windows asked for: a small text, whose windows shrink, takes no more steps than a large one
        per_window = c.batch_size * c.seq_length if self.ends is None else len(self.train) / self.per_epoch
        steps = min(ends) if ends else math.ceil(DEFAULT_SYMBOLS / per_window)
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
    def since(self) -> int:
        """The step after which the optimizer began anew."""
        return max((each["step"] for each in self.trouble if each["restored"]), default=0) if self.trouble else 0

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
        return rate * SCHEDULES[self.config.lr_schedule](self.step / self.plan["steps"]) * 0.5 ** len(self.trouble)

    def characters(self, step: int) -> int:
        """Return how many characters are read in the first ``step`` steps; with documents, about how many."""
        if self.ends is not None:
            return round(self.parts["train"] * step / self.per_epoch)
        length = steps_per_lane(len(self.train), self.B)
        epochs, rest = divmod(step, self.per_epoch)
        return round(self.B * (epochs * length + min(rest * self.T, length)) / self.ratio)

    def extend(self, max_steps: int) -> None:
        """Make a new plan that ends at ``max_steps``, from the present step on."""
        self.config = dataclasses.replace(self.config, max_steps=max_steps, epochs=None)
        self._plan()
        self.test_loss, self.saved = None, False

    def header(self) -> Header:
        """Return all that is not an array, as JSON can hold it; ``charrnn info --json`` prints it."""
        return {
            "kind": "run",
            "versions": {
                "charrnn": __version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "threads": self.threads,
            "command": self.command,
            "config": dataclasses.asdict(self.config),
            "vocabulary": self.vocabulary.to_header(),
            "parameters": len(self.stack.p.vector),
            "corpus": self.corpus,
            "batches": {
                "batch_size": self.B,
                "seq_length": self.T,
                "steps_per_epoch": self.per_epoch,
            },
            "plans": self.plans,
            "step": self.step,
            "epoch": self.epoch,
            "finished": self.finished,
            "data_position": list(self.position),
            "symbols_seen": self.read,
            "train_seconds": round(self.seconds, 3),
            "best": {
                "step": self._best_step,
                "val_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            },
            "test_loss": self.test_loss,
            "initial_loss": self.first_loss,
            "running_loss": self.recent,
            "nonfinite_events": self.trouble,
            "nonfinite_streak": self.streak,
            "baselines": {"val": self.ladder, "test": self.ladder_test},
            "notes": self.notes,
            "history": self.history,
            "samples": self.samples,
            "init_from": self.init_from,
        }

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of the file: both weights, the optimizer's memory, the carried state."""
        return {
            "best_weights": self._best,
            "last_weights": self.stack.p.vector,
            "optimizer_state": self.memory,
            "hidden_state": self.state,
        }

    def save(self, path: Path) -> None:
        """Write the run's file. Raises SaveError."""
        checkpoint.save(path, self.header(), self.arrays())

    @classmethod
    def restore(cls, path: Path, corpus: Corpus, *, val: Corpus | None = None) -> Run:
        """Return the run as it was saved. Raises CheckpointError, also when the text is another one."""
        header, arrays = checkpoint.load(path)
        if header["kind"] != "run":
            raise CheckpointError(f"{path}: weights alone, without a run to resume; --init-from {path} begins one")
        was = header["corpus"]
        other = corpus.describe_change(was)
        if not other and was["val_sha256"] != (val.sha256 if val else None):
            other = "the validation text is another"
        if other:
            raise CheckpointError(
                f"{path}: trained on another text: {other}; --init-from {path} with -o FILE trains a new run "
                f"on this one, from its weights on"
            )
        c = Config(**header["config"])
        n = num_parameters(c.cell, header["vocabulary"]["size"], c.hidden_size, c.num_layers)
        shapes = {
            "last_weights": (n,),
            "best_weights": (n,),
            "optimizer_state": (OPTIMIZERS[c.optimizer].num_moments, n),
            "hidden_state": (
                c.num_layers,
                len(load_cell(c.cell).STATE_NAMES),
                c.hidden_size,
                header["batches"]["batch_size"],
            ),
        }
        for name, shape in shapes.items():  # before anything of these sizes is made
            if arrays[name].shape != shape or arrays[name].dtype != c.dtype:
                raise CheckpointError(f"{path}: damaged: {name} is of the wrong shape or type")
        run = cls(corpus, c, val=val, saved=header)
        run.step, run.position, run.plans = header["step"], Position(*header["data_position"]), header["plans"]
        if (
            header["batches"] != {"batch_size": run.B, "seq_length": run.T, "steps_per_epoch": run.per_epoch}
            or run.step > run.plan["steps"]
            or run.position != run._position()
        ):
            raise CheckpointError(f"{path}: damaged: its windows, plan or position do not fit its text")
        run.stack.p.vector[:], run._best[:] = arrays["last_weights"], arrays["best_weights"]
        run.memory[:], run.state[:] = arrays["optimizer_state"], arrays["hidden_state"]
        run._best_step = header["best"]["step"]
        run.best_loss = math.inf if header["best"]["val_loss"] is None else header["best"]["val_loss"]
        run.seconds, run.read = header["train_seconds"], header["symbols_seen"]
        run.recent, run.first_loss = header["running_loss"], header["initial_loss"]
        run.trouble, run.streak = header["nonfinite_events"], header["nonfinite_streak"]
        for name in ("notes", "test_loss", "history", "samples", "threads", "command", "init_from"):
            setattr(run, name, header[name])
        run.saved = True
        return run

    def _position(self) -> Position:
        """Return where the next window begins, as the number of steps tells."""
        epoch, window = divmod(self.step, self.per_epoch)
        if self.ends is None:
            return Position(epoch, window * self.T)
        return Position(epoch, window) if window or not epoch else Position(epoch - 1, self.per_epoch)


def _some(codes: Codes, unit: str) -> str:
    shown = Vocabulary(codes[:40], 0, unit).symbols
    return f"{len(codes):,}" + (f" ({shown!r}{'...' * (len(codes) > 40)})" if shown else "")


def steps(run: Run) -> Iterator[Step]:
    """Train to the end of the plan, a window at a time; after each step the run may be saved.

    Truncated backpropagation through time (Williams and Peng, 1990): the state is carried from window to window,
    the gradient is not. It is that of the mean loss over the window. At the planned steps the validation part
    is scored and a sample drawn.

    A window whose loss or gradient is not finite is left out and halves the learning rate. After three in a row, or
    if a weight or a validation loss is not finite, the best weights come back, with the optimizer's memory and the
    state at zero. The tenth time raises NotFiniteError.
    """
    team = DataParallel(run.stack, run.T, run.B, run.threads)
    H, L = run.stack.hidden_size, run.stack.num_layers
    masks = np.empty((L, run.T, H, run.B), run.stack.p.vector.dtype) if run.config.dropout else None
    if run.ends is None:
        stream = contiguous_batches(run.train, run.B, run.T, run.position)
    else:
        start, seed = int(run.vocabulary.start_id[0]), [run.config.seed, ORDER]
        stream = document_batches(run.train, run.ends, run.B, run.T, run.position, start, seed)
    for window in stream:
        if run.finished:
            return
        if len(run.trouble) >= TROUBLES:
            raise NotFiniteError(f"not finite for the {TROUBLES}th time, at step {run.trouble[-1]['step']:,}; {LESS}")
        yield _step(run, window, team, masks)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # what is not finite is found and told
def _step(run: Run, window: Batch, team: DataParallel, masks: Array | None) -> Step:
    c, stack, p = run.config, run.stack, run.stack.p.vector
    began = time.perf_counter()
    T, _ = window.xs.shape
    if window.reset.any():
        run.state[..., window.reset] = 0
    if masks is not None:
        rng = np.random.default_rng([c.seed, DROPOUT, run.step])
        masks = stack.dropout_masks(rng, T, run.B, 1 - c.dropout, masks if T == run.T else None)
    loss = team.loss_and_grad(window.xs, window.ys, run.state, masks, window.num_targets) * run.ratio
    norm = clip(stack.d.vector, c.clip_norm, c.clip_value)
    lr, told = run.learning_rate, []
    before, run.position, run.step = run.read, window.position, run.step + 1
    run.read += window.num_targets
    if not (math.isfinite(loss) and math.isfinite(norm)):
        told.append(_trouble(run, f"the loss is {loss:.4g} and the gradient's norm {norm:.4g}"))
    else:
        OPTIMIZERS[c.optimizer].update(p, stack.d.vector, lr, run.step - run.since, run.memory)
        if not math.isfinite(p @ p):  # cheaper than to look at each
            told.append(_trouble(run, "the norm of the weights is not finite after the update", spoilt=True))
        run.streak = 0
        run.recent["sum"] += loss
        run.recent["steps"] += 1
        if run.first_loss is None:
            run.first_loss = loss
    run.seconds += time.perf_counter() - began
    evaluation = None
    if _due(run, run.plan["eval_every"]):
        evaluation, more = _evaluation(run, norm, lr)
        told += more
    characters = round(run.read / run.ratio) - round(before / run.ratio)
    return Step(run.step, characters, loss, evaluation, _sample(run), tuple(told))


def _trouble(run: Run, what: str, *, spoilt: bool = False) -> str:
    """Halve the learning rate and begin the state anew; go back to the best weights if these are spoilt. Tell it."""
    run.state[:] = 0
    run.streak += 1
    spoilt = spoilt or run.streak >= IN_A_ROW
    run.trouble.append({"step": run.step, "reason": what, "restored": spoilt})
    told = f"step {run.step:,}: {what}; the learning rate is halved to {run.learning_rate:.2g}"
    if not spoilt:
        return f"{told}, and this window left out"
    run.stack.p.vector[:], run.memory[:], run.streak = run._best, 0, 0
    return f"{told}, the weights of step {run._best_step:,} are back, and the optimizer begins anew"


def fit(
    run: Run,
    path: Path | None,
    *,
    stop_after: int | None = None,
    save_every: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Train, and save to ``path`` at the start, every ``save_every`` seconds and at the end.

    By default that is 60 s, or 100 times what the last save took if that is longer. ``stop_after`` ends this sitting
    after that many more steps, ``stop`` as soon as it returns True; the plan stays as it is. A save that fails on the
    way is told, and tried again. Raises what ``steps`` raises, after a save, and SaveError if the first or the last
    save fails.
    """
    took = 0.0

    def save() -> None:
        nonlocal took
        if path:
            began = time.monotonic()
            try:
                run.save(path)
            finally:
                took = time.monotonic() - began
        run.saved = True

    def interval() -> float:
        return max(SAVE_EVERY, SAVING * took) if save_every is None else save_every

    last = run.step + stop_after if stop_after else math.inf
    if not run.saved:
        save()
    at, due = run.step, time.monotonic() + interval()
    try:
        for step in steps(run):
            if time.monotonic() >= due:
                try:
                    save()
                    at = run.step
                except SaveError as e:
                    again = f"{e}; the file holds step {at:,}, and the next try is in {interval():.0f} s"
                    step = step._replace(told=(*step.told, again))
                due = time.monotonic() + interval()
            yield step
            if step.step >= last or stop():
                break
    except NotFiniteError:
        save()
        raise
    if at != run.step:
        save()


def _due(run: Run, every: int) -> bool:
    return run.finished or (every > 0 and run.step % every == 0)


def losses(run: Run, stack: Stack, part: str, adapt: float | None = None) -> Array:
    """Return -log p of each symbol of the run's ``val`` or ``test`` part, in nats, (n,)."""
    ids, context = (run.val, run.val_context) if part == "val" else (run.test, run.test_context)
    start = int(run.vocabulary.start_id[0])
    return scoring.symbol_nll(stack, ids, context, run.border, start, run.threads, adapt)


def _loss(run: Run, stack: Stack, part: str) -> float:
    """Return the loss of a part, in nats per character."""
    return float(losses(run, stack, part).sum() / run.parts[part])


def _evaluation(run: Run, norm: float, lr: float) -> tuple[dict[str, Any], list[str]]:
    """Measure how good the model is by now; return the row, and what went wrong."""
    told = []
    val_loss = None
    if len(run.val):
        val_loss = _loss(run, run.stack, "val")
        if not math.isfinite(val_loss):
            told.append(_trouble(run, f"the validation loss is {val_loss}", spoilt=True))
            val_loss = None
    if not len(run.val) or (val_loss is not None and val_loss < run.best_loss):
        run._best[:], run._best_step = run.stack.p.vector, run.step
        run.best_loss = math.inf if val_loss is None else val_loss
    losses, n = run.recent["sum"], run.recent["steps"]
    row = {
        "step": run.step,
        "epoch": run.epoch,
        "train_loss": losses / n if n else None,
        "val_loss": val_loss,
        "grad_norm": norm if math.isfinite(norm) else None,
        "learning_rate": lr,
        "characters_seen": round(run.read / run.ratio),
        "seconds": round(run.seconds, 3),
    }
    if len(run.history) >= ROWS:
        del run.history[1::2]
    run.history.append(row)
    run.recent = {"sum": 0.0, "steps": 0}
    if run.finished and len(run.test):
        best = run.stack.copy()
        best.p.vector[:] = run.best
        test_loss = _loss(run, best, "test")
        run.test_loss = test_loss if math.isfinite(test_loss) else None
    return row, told


def _sample(run: Run) -> str | None:
    # the first one after a single step: noise, to begin with
    every = run.plan["sample_every"]
    if not every or not (run.step == 1 or _due(run, every)):
        return None
    rng = np.random.default_rng([run.config.seed, SAMPLE, run.step])
    n = SAMPLE_LINES if run.config.documents == "line" else 1
    draws = generate_ids(run.stack, run.vocabulary, rng, temp=SAMPLE_TEMP, num_samples=n)
    drawn = [""] * n
    for more in decode_stream(draws, run.vocabulary, n, SAMPLE_LENGTH, separator_id=run.border):
        drawn = [text + piece for text, piece in zip(drawn, more, strict=True)]
        if n == 1 and drawn[0].count("\n") == SAMPLE_LINES:
            break
    text = "".join(line if line.endswith("\n") or n == 1 else line + "\n" for line in drawn)
    if len(run.samples) >= SAMPLES:
        del run.samples[1::2]
    run.samples.append({"step": run.step, "text": text})
    return text


def risen(run: Run) -> float | None:
    """Return the last validation loss, in nats per character, if the model has begun to learn the text by heart.

    That is so where it is more than 1.05 times the best one, and the training loss has fallen since that.
    """
    best, last = next(row for row in run.history if row["step"] >= run.best_step), run.history[-1]
    if None in (last["val_loss"], last["train_loss"], best["train_loss"]):
        return None
    if last["val_loss"] > RISEN * run.best_loss and last["train_loss"] < best["train_loss"]:
        return float(last["val_loss"])
    return None


def longest_copy(run: Run) -> int:
    """Return how many characters of the last sample the training part has word for word, at least.

    Those are characters one after the other. A part of more than 5 million symbols is searched that far.
    """
    if not run.samples:
        return 0
    text, unit = run.samples[-1]["text"], run.config.unit
    codes = units.to_codes(text.encode("latin-1") if unit == "byte" else text, unit)
    searched = code_view(run.train.store, min(run.train.stop, SEARCHED))
    for at, length in longest_matches(match_lengths(codes, searched), 1):
        piece = codes[at : at + length]
        cut = FIRST_SPECIAL <= piece[-1] < FIRST_TAIL  # in the text the syllable may have a letter more
        return int(units.starts_character(piece).sum()) - int(cut)
    return 0
