import re
from typing import Any

import pytest

from charrnn.config import CELLS, Config
from charrnn.errors import UsageError


def test_encodings_that_cannot_decode_a_text_are_rejected() -> None:
    others = ["utf-9", "base64", "hex", "rot13", "idna", "punycode", "undefined"]
    for encoding in [*others, "", "a\0b", "\ud800"]:
        with pytest.raises(UsageError, match="unknown encoding"):
            Config(encoding=encoding)
    valid = ["latin-1", "utf-16", "utf-8-sig", "utf-7", "cp949", "iso2022_kr", "hz", "cp037"]
    for encoding in valid:
        assert Config(encoding=encoding).encoding == encoding


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "invalid hidden_size: 0; must be from 1 to 65536"),
        ({"hidden_size": 1.0}, "invalid hidden_size: 1.0; must be an integer"),
        ({"hidden_size": True}, "invalid hidden_size: True; must be an integer"),
        ({"hidden_size": None}, "invalid hidden_size: None; must be an integer"),
        ({"max_steps": 0}, "invalid max_steps: 0; must be from 1 to 9007199254740992"),
        ({"max_steps": 2**63}, "must be from 1 to 9007199254740992"),
        ({"epochs": 1e300}, "must be from 0 to 1000000000"),
        ({"dropout": float("nan")}, "invalid dropout: nan; must be from 0 to 0.99"),
        (
            {"predict": "label", "generative": True, "unit": "word"},
            "--generative reads no words: use --unit char, byte or jamo",
        ),
        ({"clip_norm": float("inf")}, "invalid clip_norm: inf; must be finite"),
        ({"cell": "transformer"}, "must be one of lstm, gru, vanilla"),
        ({"cell": []}, "must be a string"),
        ({"unit": "byte", "encoding": "latin-1"}, "unit byte cannot be combined with an encoding"),
    ],
)
def test_invalid_values_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Config(**options)


def test_cell_choices_follow_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config(cell="rnn").cell == "vanilla"
    monkeypatch.setitem(CELLS, "toy", "tests.toy:Toy")
    assert Config(cell="toy").cell == "toy"


def test_defaults_depend_on_other_options() -> None:
    assert Config(optimizer="sgd").learning_rate == 1
    assert Config(dropout=0).dropout == 0.0
