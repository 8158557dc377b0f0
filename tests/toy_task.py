"""A task that the package does not have: whether the second column is longer than the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.storage.state import TaskRecord
from charrnn.tasks.base import Measures, Predictor
from charrnn.tasks.layouts import Line
from charrnn.tasks.line_corpus import new_record
from charrnn.tasks.lines import END, LineTask
from charrnn.text.units import Codes, to_codes


class Longer(LineTask):
    def collect(self, lines: Sequence[Line]) -> TaskRecord:
        return new_record(["no", "yes"])

    def encode(
        self, text: str, target: str | None, record: TaskRecord, unit: str
    ) -> tuple[Codes, NDArray[np.int64]]:
        codes = np.concatenate([to_codes(text, unit), END])
        targets = np.full(len(codes), -1)
        targets[-1] = len(target or "") > len(text)
        return codes, targets

    def predict(self, predictor: Predictor, texts: Sequence[str], **_: Any) -> list[bool]:
        return [bool(row.argmax()) for row in self.log_probs(predictor, texts)]

    def measure(self, predictions: Sequence[Any], lines: Sequence[Line]) -> Measures:
        right = [
            found == (len(line.target) > len(line.text))
            for found, line in zip(predictions, lines, strict=True)
        ]
        return {"accuracy": sum(right) / len(right)}

    def columns(self, prediction: Any, **_: Any) -> list[str]:
        return ["longer" if prediction else "not longer"]

    def row(self, prediction: Any, **_: Any) -> dict[str, Any]:
        return {"longer": prediction}
