"""Every choice of a run, with its default and its limits: the command line, the API and the file share it."""

from __future__ import annotations

import codecs
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from charrnn.errors import UsageError

# The registry of recurrences: name and class of each. A new cell is a new file and one line here.
CELLS = {
    "lstm": "charrnn.cells.lstm:LSTM",
    "gru": "charrnn.cells.gru:GRU",
    "vanilla": "charrnn.cells.vanilla:Vanilla",
}
LEARNING_RATES = {"adam": 8e-3, "rmsprop": 2e-3, "adagrad": 1e-1, "sgd": 1.0}
INHERITED = ("cell", "hidden_size", "num_layers", "unit", "dtype")  # what weights decide that a run begins with


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
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    type: type = int,
) -> Any:
    meta = {"help": help, "low": low, "high": high, "choices": choices, "type": str if choices else type}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Config:
    """The options of a run; ``None`` stands for a default that depends on the others or on the text.

    Raises UsageError for a value of the wrong type or outside its range.
    """

    cell: str = _option("gru", "The recurrence; rnn is vanilla.", choices=(*CELLS, "rnn"))
    hidden_size: int = _option(256, "Units in a layer.", low=1, high=65536)
    num_layers: int = _option(1, "Recurrent layers.", low=1, high=64)
    seq_length: int = _option(64, "Steps that gradients go back.", low=1, high=2**20)
    batch_size: int = _option(64, "Lanes that are read at once.", low=1, high=2**20)
    dropout: float = _option(0.0, "Share of each layer's outputs left out at random.", low=0, high=0.99, type=float)
    optimizer: str = _option("adam", "The update rule.", choices=tuple(LEARNING_RATES))
    learning_rate: float | None = _option(
        None,
        f"At the start [{', '.join(f'{name} {rate:g}' for name, rate in LEARNING_RATES.items())}].",
        low=0,
        type=float,
    )
    lr_schedule: str = _option(
        "cosine", "How it falls towards zero over the run.", choices=("cosine", "linear", "constant")
    )
    clip_norm: float = _option(1.0, "Longest gradient; 0 is no limit.", low=0, type=float)
    clip_value: float = _option(0.0, "Largest element of the gradient; 0 is no limit.", low=0, type=float)
    epochs: float | None = _option(None, "Passes over the training part.", low=0, type=float)
    max_steps: int | None = _option(
        None, "Windows trained on [as many as hold 10 million characters]; the earlier end counts.", low=1
    )
    val_fraction: float = _option(0.05, "Share for validation, after the training part.", low=0, high=0.5, type=float)
    test_fraction: float = _option(0.05, "Share for the test, at the end.", low=0, high=0.49, type=float)
    eval_every: int | None = _option(None, "Steps between evaluations [a twentieth of the run].", low=1)
    sample_every: int | None = _option(None, "Steps between samples [a tenth of the run]; 0 is never.", low=0)
    unit: str = _option(
        "char",
        "What the model reads: characters, bytes (of any file), or characters with Hangul cut into letters.",
        choices=("char", "byte", "jamo"),
    )
    documents: str | None = _option(
        None, "Begin every line or file afresh, not only the text.", choices=("line", "file")
    )
    encoding: str = _option("utf-8", "How the text's bytes stand for characters.", type=str)
    min_count: int = _option(1, "Read what is rarer than this as one unknown symbol.", low=1)
    max_vocab: int | None = _option(None, "Read what is beyond so many commonest symbols as one unknown one.", low=2)
    seed: int = _option(0, "Where the random numbers start.", low=0, high=2**64 - 1)
    dtype: str = _option("float32", "The precision.", choices=("float32", "float64"))

    def __post_init__(self) -> None:
        """Check every value; ``rnn`` becomes ``vanilla``, the learning rate its optimizer's."""
        for f in dataclasses.fields(self):
            value, m = getattr(self, f.name), f.metadata
            if value is None and f.default is None:
                continue
            if m["type"] is float and type(value) is int:
                object.__setattr__(self, f.name, float(value))
                value = float(value)
            if type(value) is not m["type"]:
                raise UsageError(f"{f.name} is {value!r}, and must be of type {m['type'].__name__}")
            if m["choices"] and value not in m["choices"]:
                raise UsageError(f"{f.name} is {value!r}, and must be one of {', '.join(m['choices'])}")
            low, high = m["low"], m["high"]
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                limits = f"at least {low}" if high is None else f"from {low} to {high}"
                raise UsageError(f"{f.name} is {value}, and must be {limits}")
            if m["type"] is float and value == float("inf"):
                raise UsageError(f"{f.name} must be finite")
        check_encoding(self.encoding)
        if self.unit == "byte" and self.encoding != "utf-8":
            raise UsageError(f"bytes have no encoding: unit byte does not go with encoding {self.encoding}")
        if self.cell == "rnn":
            object.__setattr__(self, "cell", "vanilla")
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", LEARNING_RATES[self.optimizer])
