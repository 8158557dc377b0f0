"""Many to many, in step: every symbol, or every word, has a tag."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import TextError, UsageError
from charrnn.storage.state import TaskRecord
from charrnn.tasks.base import Measures, Predictor
from charrnn.tasks.layouts import Line
from charrnn.tasks.line_corpus import new_record
from charrnn.tasks.lines import END, LineTask
from charrnn.text.units import Codes, to_codes

# How the tags of a line are written. That of a text is the first that fits half of its lines, or
# else the one that fits most of them.
PER = {
    "character": "tags of as many characters as the text has",
    "word": "a tag for each word, separated by spaces",
    "symbol": "a tag for each character, separated by spaces",
}
WORD = re.compile(r"\S+")


def split_tags(tags: str, per: str) -> list[str]:
    return list(tags) if per == "character" else tags.split()


def find_items(text: str, per: str) -> list[tuple[int, int]]:
    """Return where the items of a text that have a tag each begin and end."""
    if per == "word":
        return [match.span() for match in WORD.finditer(text)]
    return [(i, i + 1) for i in range(len(text))]


def fits(line: Line, per: str) -> bool:
    return len(split_tags(line.target, per)) == len(find_items(line.text, per)) > 0


class TagPrediction(NamedTuple):
    """The tags of a line; ``per`` says of what."""

    tags: list[str]
    per: str


class Tags(LineTask):
    error_name = "wrong tags"

    def collect(self, lines: Sequence[Line]) -> TaskRecord:
        count = {per: sum(fits(line, per) for line in lines) for per in PER}
        most = max(count, key=count.__getitem__)
        per = next((per for per in PER if 2 * count[per] >= len(lines)), most)
        good = [line for line in lines if fits(line, per)]
        tags = sorted({tag for line in good for tag in split_tags(line.target, per)})
        if lines and len(tags) < 2:
            hint = "a line is a text, a TAB and its tags"
            if lines[0].is_sequence:
                hint = "a line has a tag for each vector of its sequence"
            raise TextError(f"there are no two different tags; {hint}")
        return new_record(tags, per)

    def find_problem(self, line: Line, record: TaskRecord) -> str:
        if fits(line, record["per"]):
            return ""
        per = record["per"]
        wanted, found = len(find_items(line.text, per)), len(split_tags(line.target, per))
        noun = "words" if per == "word" else "vectors" if line.is_sequence else "characters"
        return f"it has {wanted:,} {noun} and {found:,} tags" if wanted else "it has no text"

    def encode(
        self, text: str, target: str | None, record: TaskRecord, unit: str
    ) -> tuple[Codes, NDArray[np.int64]]:
        """Return codes and targets: the tag of a word, or character, is that of its last symbol."""
        per, index = record["per"], {tag: i for i, tag in enumerate(record["outputs"])}
        if unit == "word" and per != "word":
            raise UsageError("--unit word needs a tag for each word; here each character has one")
        items = find_items(text, per)
        tags = [None] * len(items) if target is None else split_tags(target, per)
        pieces, targets, end = [], [], 0
        for (start, stop), tag in zip(items, tags, strict=True):
            between, item = to_codes(text[end:start], unit), to_codes(text[start:stop], unit)
            pieces += [between, item]
            targets += [-1] * (len(between) + len(item) - 1)
            targets.append(0 if tag is None else index.get(tag, -1))
            end = stop
        rest = np.concatenate([to_codes(text[end:], unit), END])
        codes = np.concatenate([*pieces, rest])
        return codes, np.array(targets + [-1] * len(rest), np.int64)

    def predict(
        self, predictor: Predictor, texts: Sequence[str], **options: Any
    ) -> list[TagPrediction]:
        logp = self.log_probs(predictor, texts, options.get("rows", ()))
        names, per = predictor.record["outputs"], predictor.record["per"]
        found = [names[i] for i in logp.argmax(1).tolist()]
        ends = np.cumsum([len(find_items(text, per)) for text in texts], dtype=int).tolist()
        starts = [0, *ends]
        return [TagPrediction(found[a:b], per) for a, b in zip(starts, ends, strict=False)]

    def measure(self, predictions: Sequence[Any], lines: Sequence[Line]) -> Measures:
        right = total = whole = 0
        for prediction, line in zip(predictions, lines, strict=True):
            pairs = list(zip(prediction.tags, split_tags(line.target, prediction.per), strict=True))
            matches = sum(found == tag for found, tag in pairs)
            right, total, whole = (
                right + matches,
                total + len(pairs),
                whole + (matches == len(pairs)),
            )
        return {"accuracy": right / max(total, 1), "line_accuracy": whole / max(len(lines), 1)}

    def error(self, prediction: Any, line: Line) -> float:
        """Return the number of wrong tags."""
        tags = split_tags(line.target, prediction.per)
        return float(sum(a != b for a, b in zip(prediction.tags, tags, strict=True)))

    def measure_baselines(self, train: Sequence[Line], test: Sequence[Line]) -> dict[str, Measures]:
        per = self.collect(train)["per"]
        noun = "word" if per == "word" else "character"
        widths = {f"most common tag of each {noun}": 0, f"of each {noun} and its neighbors": 1}
        if train[0].is_sequence:
            widths = {"majority": -1}
        found = {}
        for name, width in widths.items():
            tagger = CountTagger(train, per, width)
            predictions = [TagPrediction(tagger.tag(line.text), per) for line in test]
            found[name] = self.measure(predictions, test)
        return found

    def columns(self, prediction: Any, **_: Any) -> list[str]:
        return [("" if prediction.per == "character" else " ").join(prediction.tags)]

    def row(self, prediction: Any, **_: Any) -> dict[str, Any]:
        return {"tags": prediction.tags}


class CountTagger:
    """The most common tag of an item between its neighbors, or of the item, or of all."""

    def __init__(self, lines: Sequence[Line], per: str, width: int) -> None:
        self.per, self.widths = per, range(width, -2, -1)
        counts: dict[tuple[str, ...], Counter[str]] = {}
        for line in lines:
            tags = split_tags(line.target, per)
            for keys, tag in zip(self.keys(line.text), tags, strict=True):
                for key in keys:
                    counts.setdefault(key, Counter())[tag] += 1
        self.best = {key: of_key.most_common(1)[0][0] for key, of_key in counts.items()}

    def keys(self, text: str) -> Iterator[list[tuple[str, ...]]]:
        """Yield for each item what its tag may depend on, the longest first."""
        items = ["", *(text[a:b] for a, b in find_items(text, self.per)), ""]
        for i in range(1, len(items) - 1):
            yield [tuple(items[i - w : i + w + 1]) if w >= 0 else () for w in self.widths]

    def tag(self, text: str) -> list[str]:
        return [
            next(self.best[key] for key in keys if key in self.best) for keys in self.keys(text)
        ]
