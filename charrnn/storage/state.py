"""The header of a checkpoint, key for key: what is known of a run or a model.

The type hints of ``State`` and of its records are the schema that ``header`` checks.
"""

# NumPy is not imported: the command line reads a header before it chooses the number of threads.

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypedDict

from charrnn.config import MAX_COUNT, Config

FORMAT = 5
MAX_WORKERS = 1024

# of jamo, the end of a document, the unknown symbol, and those that spell words; see ``units``
SPECIAL_CODES = range(0x110000, 0x110000 + 88)

NonNegative = Annotated[int, range(MAX_COUNT + 1)]
Positive = Annotated[int, range(1, MAX_COUNT + 1)]
Special = Annotated[int, SPECIAL_CODES]
Amount = Annotated[float, (0.0, float(MAX_COUNT))]  # of epochs, or of seconds
MAX_LOSS = 1e300  # in nats; a larger one, of float64, counts as non-finite
Loss = Annotated[float, (-MAX_LOSS, MAX_LOSS)]
NonNegativeReal = Annotated[float, (0.0, MAX_LOSS)]
Share = Annotated[float, (1e-12, 1.0)]
Discount = Annotated[float, (0.0, 3.0)]
Real = Annotated[float, (-MAX_LOSS, MAX_LOSS)]
# Path, bytes and CRC-32. Paths are relative to the checkpoint's folder, or absolute; standard input
# is "-", a file of that name "./-", and a text that was given to the Python API null.
FileRecord = tuple[str | None, NonNegative, NonNegative]

Versions = TypedDict("Versions", {"charrnn": str, "numpy": str, "python": str})
# before the first evaluation, and without a validation split, the loss is None
Best = TypedDict("Best", {"step": NonNegative, "val_loss": Loss | None})
SplitCharacters = TypedDict(
    "SplitCharacters", {"train": NonNegative, "val": NonNegative, "test": NonNegative}
)
# smaller than the options for a small text
Batches = TypedDict(
    "Batches", {"batch_size": Positive, "seq_length": Positive, "steps_per_epoch": Positive}
)
# since the last evaluation
RunningLoss = TypedDict("RunningLoss", {"sum": Loss, "steps": NonNegative})
# losses of a uniform guess and of n-gram models, by name
Baselines = TypedDict("Baselines", {"val": dict[str, Loss], "test": dict[str, Loss]})
LoggedSample = TypedDict("LoggedSample", {"step": NonNegative, "text": str})
# the best weights were restored, or else the batch was skipped
NonfiniteEvent = TypedDict("NonfiniteEvent", {"step": NonNegative, "reason": str, "restored": bool})


class WordsRecord(TypedDict, total=False):
    words: list[str]  # sorted; only of the unit word


class VocabularyRecord(WordsRecord):
    size: Positive
    symbols: str  # in the order of their codes; bytes as the characters of the same numbers
    special: list[Special]
    start_symbol: NonNegative


class TextRecord(TypedDict):
    name: str
    files: list[FileRecord]  # the first ones, if a header cannot list them all
    num_files: NonNegative
    bytes: NonNegative
    characters: NonNegative
    symbols: NonNegative
    sha256: str


class CorpusRecord(TextRecord):
    split_characters: SplitCharacters


class Plan(TypedDict):
    from_step: NonNegative
    steps: Positive
    eval_every: Positive
    sample_every: NonNegative  # 0 for never


class Evaluation(TypedDict):  # losses are in nats per character
    step: NonNegative
    epoch: Amount
    train_loss: Loss | None
    val_loss: Loss | None
    grad_norm: NonNegativeReal | None
    learning_rate: NonNegativeReal
    characters_seen: NonNegative
    seconds: Amount


class CountsRecord(TypedDict):  # of n-grams, for n = 1, 2, ...
    sizes: list[NonNegative]
    discounts: list[tuple[Discount, Discount, Discount, Discount]]
    bytes: NonNegative  # compressed


class Adaptation(TypedDict):  # see ``adaptive.AdaptiveRule``
    learning_rate: NonNegativeReal
    decay: NonNegativeReal
    gate: list[Real]


class Mixing(TypedDict):  # gates: see ``mixture``
    static: list[Real]
    learning: list[Real]
    adaptation: Adaptation | None  # if the optimizer has second moments
    # of the test split, in nats per character, by the counts and by the mixture, both learning
    counts_loss: Loss | None
    mixed_loss: Loss | None


class SharesRecord(TypedDict, total=False):
    shares: list[Share]  # of the labels among the training lines; only of --generative


class TaskRecord(SharesRecord):  # of a model that predicts something else than the next symbol
    outputs: list[str]  # labels or tags; those of the network, unless its outputs are symbols
    per: str  # of tags, see ``tasks.tags``
    counts_bytes: NonNegative  # of the counts that the network is mixed with
    weights: list[Real]  # of the network and of the counts; none before the end of the run


class FeaturesRecord(TypedDict):  # of the vectors that the network reads
    file: FileRecord
    rows: NonNegative
    shape: list[Positive]  # of a row: its size, or regions and their size


class InitFrom(TypedDict):
    file: str
    sha256: str | None
    matched: NonNegative  # symbols of both vocabularies
    added: NonNegative
    unused: NonNegative


@dataclass(kw_only=True)
class ModelState:
    """The header of an exported model; every checkpoint has these fields."""

    kind: Literal["model", "run"] = "model"
    format: Positive = FORMAT
    sha256: str = ""  # of the header; computed on saving, like the checksums of the arrays
    arrays: dict[str, str] = field(default_factory=dict)
    versions: Versions
    config: Config
    vocabulary: VocabularyRecord
    parameters: NonNegative
    step: NonNegative = 0
    epoch: Amount = 0.0
    best: Best = field(default_factory=lambda: Best(step=0, val_loss=None))
    test_loss: Loss | None = None  # of the best weights of a finished run
    counts: CountsRecord | None = None
    mixing: Mixing | None = None  # of a finished run with a validation split
    task: TaskRecord | None = None  # None for a language model
    features: FeaturesRecord | None = None  # None without --features


@dataclass(kw_only=True)
class State(ModelState):
    """The header of the checkpoint of a run."""

    kind: Literal["model", "run"] = "run"
    command: str
    workers: Annotated[int, range(1, MAX_WORKERS + 1)]  # of each rank
    ranks: Positive
    sync_every: Positive  # steps
    corpus: CorpusRecord
    val_corpus: TextRecord | None
    batches: Batches
    plans: list[Plan] = field(default_factory=list)  # the last one applies
    finished: bool = False
    data_position: tuple[NonNegative, NonNegative] = (0, 0)  # see ``batches.Position``
    symbols_seen: NonNegative = 0
    num_averaged: NonNegative = 0  # steps whose weights are in the average
    train_seconds: Amount = 0.0
    initial_loss: Loss | None = None
    running_loss: RunningLoss = field(default_factory=lambda: RunningLoss(sum=0.0, steps=0))
    nonfinite_events: list[NonfiniteEvent] = field(default_factory=list)  # halve the learning rate
    nonfinite_streak: NonNegative = 0  # consecutive batches
    baselines: Baselines
    history: list[Evaluation] = field(default_factory=list)
    samples: list[LoggedSample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    init_from: InitFrom | None
    # of a finished run with a task: what is measured on the test split, for the model and baselines
    measures: dict[str, dict[str, Real]] = field(default_factory=dict)
