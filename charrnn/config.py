"""The options of a run, their defaults and limits: shared by command line, API and checkpoint."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from charrnn.errors import UsageError

# The registry of recurrences: name and class of each. A new cell is a new file and one line here.
CELLS = {
    "lstm": "charrnn.cells.lstm:LSTM",
    "gru": "charrnn.cells.gru:GRU",
    "vanilla": "charrnn.cells.vanilla:Vanilla",
}
CELL_ALIASES = {"rnn": "vanilla"}
# The registry of tasks, what a network is to predict: name and class of each.
TASKS = {
    "next": "charrnn.tasks.language:Language",
    "label": "charrnn.tasks.label:Label",
    "tags": "charrnn.tasks.tags:Tags",
    "text": "charrnn.tasks.text:Text",
}
# With --generative these take their places.
GENERATIVE_TASKS = {"label": "charrnn.tasks.generative:Generative"}
MAX_COUNT = 2**53  # of steps or symbols: any JSON reader keeps it exact
LEARNING_RATES = {"adam": 8e-3, "rmsprop": 2e-3, "adagrad": 1e-1, "sgd": 1.0}
DEFAULT_WORDS, MAX_WORDS = 20_000, 2**17  # symbols of a vocabulary of words
DEFAULT_RATES = ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items())
# How much work each preset is, in units of the default length of a run with the default model.
PRESETS = {"tiny": 0.1, "small": 1.0, "medium": 5.0, "large": 20.0}
# With initial weights, their model decides these.
ARCHITECTURE_OPTIONS = ("cell", "hidden_size", "num_layers", "unit", "mask", "dtype")


def check_encoding(encoding: str) -> None:
    """Raise UsageError unless Python knows the encoding, and can decode a file in it by chunks.

    That leaves out encodings of something else than text (base64) or of one line (idna, punycode).
    """
    text = "a\nb" + "c" * 100
    try:
        data = text.encode(encoding)
        decoder = codecs.getincrementaldecoder(encoding)()
        decoded = "".join(decoder.decode(bytes([byte])) for byte in data)
    except (LookupError, ValueError):  # a UnicodeError is a ValueError, and so is NUL in the name
        decoded = ""
    if decoded != text:
        raise UsageError(f"unknown encoding {encoding!r}; try utf-8, latin-1 or cp1252")


def _option(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: Collection[str] = (),
    kind: type = int,
    only: Collection[str] = (),
    never: Collection[str] = (),
    reason: str = "",
) -> Any:
    """Return a field; ``kind`` is the type of its values if there is no default and no choices.

    ``only`` these tasks read the option, or all but those in ``never``, for a ``reason``.
    """
    kind = str if choices else kind if default is None else type(default)
    meta = {"help": help, "low": low, "high": high, "choices": choices, "type": kind}
    meta |= {"only": only, "never": never, "reason": reason}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Config:
    """The options of a run. ``None`` means a default that depends on other options or the text.

    Raises UsageError for a value of the wrong type or outside its range.
    """

    cell: str = _option(  # looked up when a value is checked: cells may be added
        "gru", "Type of recurrent cell (rnn is an alias of vanilla).", choices=CELLS
    )
    hidden_size: int = _option(256, "Hidden units per layer.", 1, 65536)
    num_layers: int = _option(1, "Number of recurrent layers.", 1, 64)
    seq_length: int = _option(
        64,
        "Sequence length: number of steps to backpropagate through.",
        1,
        2**20,
        only=["next"],
        reason="every line is read as a whole",
    )
    batch_size: int = _option(64, "Number of sequences per batch.", 1, 2**20)
    dropout: float = _option(0.0, "Dropout probability, applied to each layer's outputs.", 0, 0.99)
    optimizer: str = _option("adam", "Optimizer.", choices=LEARNING_RATES)
    learning_rate: float | None = _option(
        None, f"Initial learning rate [{DEFAULT_RATES}].", 0, kind=float
    )
    lr_schedule: str = _option(
        "cosine",
        "Learning-rate schedule; all but constant decay to zero over the run.",
        choices=("cosine", "linear", "constant"),
    )
    weight_decay: float = _option(
        0.0,
        "Weight decay: each step multiplies the weights by 1 minus learning rate times this.",
        0,
    )
    clip_norm: float = _option(1.0, "Clip the norm of the gradient to this value; 0 disables.", 0)
    clip_value: float = _option(
        0.0, "Clip each element of the gradient to this absolute value; 0 disables.", 0
    )
    epochs: float | None = _option(
        None, "Number of passes over the training split.", 0, 10**9, kind=float
    )
    max_steps: int | None = _option(
        None,
        "Number of training steps [enough for 10 million characters]. With --epochs, whichever "
        "ends first.",
        1,
        MAX_COUNT,
    )
    val_fraction: float = _option(
        0.05, "Fraction of the corpus for validation, taken after the training split.", 0, 0.5
    )
    test_fraction: float = _option(
        0.05, "Fraction of the corpus for testing, taken from the end.", 0, 0.49
    )
    eval_every: int | None = _option(
        None, "Evaluate every N steps [1/20 of the run].", 1, MAX_COUNT
    )
    patience: int = _option(
        5,
        "Stop after N planned evaluations without a better validation loss; 0 disables.",
        0,
        MAX_COUNT,
    )
    sample_every: int | None = _option(
        None,
        "Print a sample every N steps [1/10 of the run]; 0 disables.",
        0,
        MAX_COUNT,
        only=["next"],
        reason="only a language model writes samples",
    )
    unit: str = _option(
        "char",
        "Unit of text: characters, bytes (works for any file), characters with Hangul syllables "
        "decomposed into jamo, or words, numbers, blanks and marks.",
        choices=("char", "byte", "jamo", "word"),
    )
    documents: str | None = _option(
        None,
        "Treat every line or file as a separate document: the hidden state is reset at its start.",
        choices=("line", "file"),
        only=["next"],
        reason="every line is read on its own",
    )
    encoding: str = _option("utf-8", "Character encoding of the corpus.")
    mask: str | None = _option(
        None,
        "Read every number and address of a log as one character; with identifiers, every word "
        "with a digit too.",
        choices=("numbers", "identifiers"),
        only=["next"],
        reason="lines are read unchanged",
    )
    min_count: int = _option(
        1,
        "Map symbols that occur fewer than N times to one unknown symbol; words are spelled.",
        1,
        MAX_COUNT,
    )
    max_vocab: int | None = _option(
        None,
        "Limit the vocabulary to N symbols; the rarer ones become one unknown symbol, which "
        f"counts as one of the N. Rarer words are spelled [word: {DEFAULT_WORDS}].",
        2,
        MAX_COUNT,
    )
    seed: int = _option(0, "Random seed.", 0, 2**64 - 1)
    dtype: str = _option("float32", "Floating-point type.", choices=("float32", "float64"))
    predict: str = _option(
        "next",
        "What to predict: the next symbol of a text; or, of every line, what stands after its TAB: "
        "one label, one tag for each symbol or word, or a text to write.",
        choices=TASKS,
    )
    bidirectional: bool = _option(
        False,
        "With label and tags: a second network reads every line from the right.",
        never=["next", "text"],
        reason="a text that is to be continued has nothing on its right yet",
    )
    attention: bool = _option(
        False,
        "With text: every step of what is written looks at all steps of what was read, or, with "
        "--features, at all regions of the row.",
        only=["text"],
        reason="only what is written after a text can look back at it",
    )
    generative: bool = _option(
        False,
        "With label: learn to write the texts of each label, and predict the label that makes a "
        "text most likely.",
        only=[*GENERATIVE_TASKS],
        reason="only a label can be found by the likelihood of its text",
    )
    feature_input: str = _option(
        "first",
        "With --features: a vector enters with the first symbol of its line, or with each.",
        choices=("first", "each"),
        only=["text"],
        reason="a sequence of vectors has one for each step",
    )
    columns: str | None = _option(
        None,
        "With label, tags and text: the two columns to read of CSV (tabs in a file named .tsv) or "
        "of JSON lines, as in text,label.",
        kind=str,
        never=["next"],
        reason="a text has no columns",
    )
    skip_bad: bool = _option(
        False,
        "With label, tags and text: leave out bad lines and count them.",
        never=["next"],
        reason="a text has no bad lines",
    )

    def __post_init__(self) -> None:
        """Check every value; resolve aliases and the default of the learning rate."""
        object.__setattr__(self, "cell", CELL_ALIASES.get(str(self.cell), self.cell))
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.metadata["type"] is float and type(value) is int:
                object.__setattr__(self, f.name, float(value))
            if value is not None or f.default is not None:
                _check_option(f.name, getattr(self, f.name), f.metadata)
        self._check_task()
        check_encoding(self.encoding)
        if self.unit == "byte" and self.encoding != "utf-8":
            raise UsageError(f"unit byte cannot be combined with an encoding ({self.encoding})")
        if self.unit == "byte" and self.mask is not None:
            raise UsageError(f"unit byte cannot be combined with a mask ({self.mask})")
        if self.unit == "word":
            self._limit_words()
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", LEARNING_RATES[self.optimizer])

    def _check_task(self) -> None:
        """Raise UsageError for an option that the task does not read, with the reason."""
        for f in dataclasses.fields(self):
            m, is_given = f.metadata, getattr(self, f.name) != f.default
            is_read = self.predict not in m["never"] and self.predict in (m["only"] or TASKS)
            if is_given and not is_read:
                option = f"--{f.name.replace('_', '-')}"
                raise UsageError(f"--predict {self.predict} does not read {option}: {m['reason']}")
        if self.generative and self.bidirectional:
            reason = "what predicts the next symbol must not read it from the right"
            raise UsageError(f"--generative cannot be combined with --bidirectional: {reason}")
        if self.generative and self.unit == "word":
            raise UsageError("--generative reads no words: use --unit char, byte or jamo")
        if self.predict == "text" and self.unit == "word":
            reason = "a text that is written could end within a spelled word"
            raise UsageError(f"--predict text does not read --unit word: {reason}")
        if self.columns is not None and len({*self.columns.split(",")}) != 2:
            raise UsageError(f"invalid columns: {self.columns!r}; must be two, as in text,label")

    def _limit_words(self) -> None:
        """Resolve the default size of a vocabulary of words; raise UsageError for a huge one."""
        if self.max_vocab is None:
            object.__setattr__(self, "max_vocab", DEFAULT_WORDS)
        elif self.max_vocab > MAX_WORDS:
            most = f"at most {MAX_WORDS} for the unit word"
            raise UsageError(f"invalid max_vocab: {self.max_vocab}; must be {most}")


def _check_option(name: str, value: Any, meta: Mapping[str, Any]) -> None:
    """Raise UsageError unless a value has the type, and is one of the choices or in the range."""
    choices, low, high = meta["choices"], meta["low"], meta["high"]
    if type(value) is not meta["type"]:
        kinds = {int: "an integer", float: "a float", str: "a string", bool: "true or false"}
        wanted = kinds[meta["type"]]
    elif choices and value not in choices:
        wanted = f"one of {', '.join(choices)}"
    elif (low is not None and not value >= low) or (high is not None and not value <= high):
        wanted = f"at least {low}" if high is None else f"from {low} to {high}"
    elif value == float("inf"):
        wanted = "finite"
    else:
        return
    raise UsageError(f"invalid {name}: {value!r}; must be {wanted}")
