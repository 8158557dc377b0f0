"""The page that runs a model: its content, and the command that writes it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

import charrnn
from charrnn.config import CELLS
from charrnn.drawing import player
from charrnn.drawing.player import render_player
from charrnn.errors import NotFiniteError, UsageError
from charrnn.formatting import standalone_jamo
from charrnn.model import Model
from charrnn.text import units
from tests import toy_cell
from tests.conftest import Cli
from tests.pages import ESCAPES, HOSTILE, Page

PACKAGE = player.PACKAGE
MAX_LINES = 150  # of the network and its cells in JavaScript


@pytest.fixture
def model(run: Path) -> Model:
    return charrnn.load(run)


def page_model(html: str) -> dict[str, object]:
    """Return the data of the model in a page."""
    (_, data), *_ = re.findall(r'(<script type="application/json" id="model">)(.*)</script>', html)
    found: dict[str, object] = json.loads(data)
    return found


def test_page_has_the_weights_and_the_vocabulary_as_numbers(model: Model) -> None:
    found = page_model(render_player(model, "play"))
    weights = np.frombuffer(base64.b64decode(str(found["weights"])), "<f2")
    assert (weights == model.network.params.vector.astype(np.float16)).all()
    assert found["codes"] == model.vocabulary.codes.tolist()
    assert (found["hidden_size"], found["num_layers"], found["unit"]) == (12, 1, "char")
    assert found["start_id"] == model.vocabulary.id(ord("\n"))
    assert found["separator_id"] is found["unknown_id"] is None


def test_nothing_from_a_checkpoint_is_markup() -> None:
    text = f"{HOSTILE}\n" * 40
    model = charrnn.train(text, hidden_size=4, max_steps=1, documents="line", min_count=2)
    html = render_player(model, HOSTILE)
    page = Page(html)
    assert page.texts["h1"] == [HOSTILE.translate(ESCAPES)]
    assert len(page.with_tag("script")) == 2
    assert "hacked" not in page.texts["script"][0]
    assert not re.search(r"https?:|url\(|@import", html)
    assert not any(c in html for c in "\0\x1b\u202e\u2066")


def test_page_and_model_file_are_written_together_or_not_at_all(cli: Cli, run: Path) -> None:
    done = cli("export", run, "--html", "page.html", "-o", "model.npz")
    data = Path("page.html").read_bytes()
    saved = [line.split(",")[0] for line in done.stderr.decode().splitlines()]
    assert (done.stdout, saved) == (b"", ["saved model.npz", "saved page.html"])
    assert b"<h1>corpus</h1>" in data
    assert b"trained on corpus for 30 steps" in data

    # --half changes the model file only: the page of either file has the same weights
    cli("export", run, "--html", "half.html", "--half", "-o", "half.npz")
    assert Path("half.html").read_bytes() == data
    assert Path("half.npz").stat().st_size < Path("model.npz").stat().st_size
    for name in ("model", "half"):
        cli("export", f"{name}.npz", "--html", "page.html", "--force")
        page = Path("page.html").read_text(encoding="utf-8")
        assert page_model(page) == page_model(data.decode())

    # nothing is written if one of them must not be
    err = cli("export", run, "-o", "new.npz", "--html", "half.html", rc=2).stderr
    assert err == b"charrnn: half.html already exists; use --force to overwrite it\n"
    assert not Path("new.npz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name a file to write: -o FILE for a model, --html FILE for a page"),
        (["-o", "page.html"], "-o writes a model file; for a page, use --html page.html"),
        (["-o", "x", "--html", "./x"], "-o and --html name the same file, x"),
        (["--html", "checkpoints/corpus.npz", "--force"], "is read by this command"),
    ],
)
def test_outputs_that_make_no_sense_are_refused(
    cli: Cli, run: Path, options: list[str], message: str
) -> None:
    assert message in cli("export", run, *options, rc=2).stderr.decode()
    assert {path.name for path in Path().iterdir()} == {"corpus.txt", "checkpoints"}


def test_cell_without_a_twin_is_refused_by_name(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CELLS, "toy", "tests.toy_cell:Toy")
    toy = charrnn.train("abc\n" * 100, cell="toy", hidden_size=4, max_steps=1)
    assert isinstance(toy.network.cell, toy_cell.Toy)
    message = "the cell toy cannot run in a browser; it needs toy_cell.js beside toy_cell.py"
    with pytest.raises(UsageError, match=re.escape(message)):
        render_player(toy, "toy")


def test_weight_beyond_float16_is_refused(model: Model) -> None:
    model.network.params.vector[3] = 70_000
    with pytest.raises(NotFiniteError, match="a weight is beyond the range of float16"):
        render_player(model, "play")


def test_every_cell_has_a_twin_and_they_are_short() -> None:
    modules = (target.partition(":")[0].split(".")[1:] for target in CELLS.values())
    twins = [PACKAGE.joinpath(*module).with_suffix(".js") for module in modules]
    files = [*twins, PACKAGE / "network.js"]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= MAX_LINES


def test_units_have_the_same_constants_in_javascript() -> None:
    script = (PACKAGE / "text" / "units.js").read_text(encoding="utf-8")
    numbers = f"{units.FIRST_SPECIAL:#x}", units.LEADS, units.VOWELS, units.TAILS
    for name, number in zip(
        ("FIRST_SPECIAL", "SPECIAL +", "VOWEL +", "TAIL +"), numbers, strict=True
    ):
        assert re.search(rf"{re.escape(name)}( =)? {number}\b", script), name
    assert f"FIRST_SYLLABLE = {units.FIRST_SYLLABLE:#x}" in script
    jamo = "".join(re.findall('"([ㄱ-ㅣ]+)"', script))
    assert list(jamo) == [standalone_jamo(chr(code)) for code in units.CONJOINING_JAMO]
