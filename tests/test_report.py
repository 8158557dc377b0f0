"""The page that tells of a run: what it says, and that nothing a file says can break it."""

from __future__ import annotations

import copy
import math
import re
import unicodedata
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from charrnn.probing import saturation
from hypothesis import given
from hypothesis import strategies as st

import charrnn
from charrnn.errors import CheckpointError
from charrnn.model import Model
from charrnn.report import TEMPS, alone, page, spread, ticks
from tests.conftest import Cli

TITLES = [
    "The text and the model",
    "How the loss fell",
    "What that is worth",
    "From noise to words",
    "The same model at four temperatures",
    "What surprises the model",
    "The gates",
    "What went wrong",
    "To make it again",
]
QUICK: dict[str, Any] = {"hidden_size": 8, "max_steps": 20, "eval_every": 4, "sample_every": 5, "seq_length": 16}
HOSTILE = "</script></pre><script>hacked = 1</script><b>&amp;\"'\0\x1b[2J\u202e\u2066\ud800\r\x85\u2028<!--"


class Outline(HTMLParser):
    """What a page holds. Every tag must be closed, in order, and nothing may be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert not {"src", "href", "srcset", "data", "action"} & dict(attrs).keys()
        if tag not in ("meta", "br"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def having(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())]


@pytest.fixture(scope="module")
def trained() -> Model:
    rng = np.random.default_rng(0)
    words = ["the", "king", "queen", "of", "<b>", "night", "sea", "&amp;", "shall", "not", "come"]
    text = "".join(" ".join(rng.choice(words, 6)) + ".\n" for _ in range(150))
    model = charrnn.train(text, **QUICK)
    model.header |= {"command": "charrnn train king.txt", "sha256": "0" * 64}
    return model


@pytest.fixture
def model(trained: Model) -> Model:
    return Model(trained.stack, trained.vocabulary, copy.deepcopy(trained.header))


def test_every_section_is_there(model: Model) -> None:
    text = page(model, "the king of night\n")
    outline = Outline(text)
    assert [tag for tag, _ in outline.tags if tag in ("h1", "h2")] == ["h1"] + ["h2"] * len(TITLES)
    assert outline.texts["h2"] == TITLES
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert not re.search(r"https?:|url\(|@import", text)
    assert text == page(model, "the king of night\n")


def test_figures_are_those_of_the_header(model: Model) -> None:
    h = model.header
    outline = Outline(page(model))
    rows = dict(zip(outline.texts["dt"], outline.texts["dd"], strict=True))
    best, test = h["best"], h["test_loss"]
    assert rows["best validation loss"] == (
        f"{best['val_loss']:.3f} nats ({best['val_loss'] / math.log(2):.3f} bits), step {best['step']}"
    )
    assert rows["test loss"].startswith(f"{test:.3f} nats")
    assert rows["parts"].startswith(f"{h['corpus']['parts']['train']:,} to train on")
    assert f"{h['parameters']:,} parameters" in rows["model"]
    assert rows["text, SHA-256"] == h["corpus"]["sha256"]
    assert rows["seed"] == "0"
    assert rows["versions"] == f"charrnn {h['charrnn']}, NumPy {h['numpy']}, Python {h['python']}"
    assert "charrnn train king.txt" in outline.texts["pre"][-1]
    losses, tests = {**h["ladder"], "this model": best["val_loss"]}, {**h["ladder_test"], "this model": test}
    order = sorted(losses, key=losses.__getitem__, reverse=True)
    numbers = [f"{value:.3f}" for name in order for value in (losses[name], losses[name] / math.log(2), tests[name])]
    assert [cell for cell in outline.texts["td"] if cell] == numbers
    widths = [float(a["style"][6:-1]) for a in outline.having("i") if a.get("style")]  # type: ignore[index]
    assert widths == pytest.approx([100 * losses[name] / losses["uniform"] for name in order], abs=0.06)


def test_the_curve_is_drawn_to_scale(model: Model) -> None:
    h = model.header
    outline = Outline(page(model))
    points = outline.having("g", **{"class": "point"})
    assert len(points) == len(h["history"]) == 5
    for row, point in zip(h["history"], points, strict=True):
        told = point["aria-label"]
        assert told
        assert f"Step {row['step']}: training {row['train_loss']:.3f} nats" in told
        assert f"validation {row['val_loss']:.3f} nats" in told
        assert ("(best)" in told) == (row["step"] == h["best"]["step"])
    for name in ("train", "val"):
        dots = [
            (float((a["cx"] or "").rstrip("%")), float((a["cy"] or "").rstrip("%")))
            for a in outline.having("circle", **{"class": name})
        ]
        steps, losses = (np.array([row[key] for row in h["history"]]) for key in ("step", f"{name}_loss"))
        assert [x for x, _ in dots] == pytest.approx(100 * steps / steps[-1], abs=0.01)
        # the scale is that of the labels beside the grid
        text = re.findall(r'<text x="-8" y="([\d.]+)%".*?>([\d.]+)</text>', page(model))
        (y0, t0), (y1, t1) = ([float(v) for v in text[i]] for i in (0, -1))
        assert (y0, y1) == (100, 0)
        assert [t0 + (y - y0) * (t1 - t0) / (y1 - y0) for _, y in dots] == pytest.approx(losses, abs=2e-3)
        (line,) = outline.having("polyline", **{"class": name})
        corners = [tuple(map(float, pair.split(","))) for pair in (line["points"] or "").split()]
        assert np.array(corners) == pytest.approx(np.array(dots), abs=0.01)


def test_samples_in_order_and_at_four_temperatures(model: Model) -> None:
    outline = Outline(page(model))
    drawn = [s["text"].removesuffix("\n") for s in model.header["samples"]]
    new = ["".join(model.sample(300, seed=0, temp=temp)).removesuffix("\n") for temp in TEMPS]
    assert len(drawn) == 5
    assert outline.texts["pre"] == ["\n" + text for text in [*drawn, *new]] + ["\ncharrnn train king.txt"]
    heads = [title.split(",")[0] for title in outline.texts["h3"]]
    steps = [f"Step {s['step']}" for s in model.header["samples"]]
    assert heads[:9] == steps + [f"Temperature {temp}" for temp in (0.4, 0.7, 1.0, 1.3)]


@pytest.mark.parametrize(("cell", "names"), [("gru", "zr"), ("lstm", "ifo"), ("vanilla", "")])
def test_gates(model: Model, text: str, cell: str, names: str) -> None:
    model = charrnn.train(text, cell=cell, num_layers=2, **QUICK)
    model.stack.p.vector[:] *= 4  # so that gates are shut and open
    outline = Outline(page(model, text[:900]))
    shares = saturation(model.stack, model.vocabulary.encode(text[:900]), model.vocabulary.start_id)
    cells = [cell for cell in outline.texts["td"] if cell][-6 * len(names) or 99999 :]
    wanted = [
        value for name in names for layer in (0, 1) for value in (name, *(f"{v:.1%}" for v in shares[name][layer]))
    ]
    assert cells == wanted
    assert ("A vanilla network has no gates." in outline.texts["p"]) == (not names)


def test_hostile_strings_change_nothing_but_the_text(model: Model) -> None:
    harmless = Model(model.stack, model.vocabulary, copy.deepcopy(model.header))
    for m, word in ((harmless, "dull"), (model, HOSTILE)):
        h = m.header
        h["samples"] = [{"step": 1, "text": word}]
        h["notes"], h["command"] = [word], word
        h["trouble"] = [{"step": 3, "what": word, "restored": True}]
        h["ladder"] = {word: 2.0}
        h["init_from"] = {"file": word, "sha256": None, "matched": 1, "added": 0, "unused": 0}
        h["corpus"] |= {"name": word, "files": [[word, 1, 1]], "sha256": word, "val_files": [word], "val_sha256": word}
        h |= {"charrnn": word, "numpy": word, "python": word}
    text = page(model, missing=HOSTILE)
    shown, plain = Outline(text), Outline(page(harmless, missing="dull"))
    assert [tag for tag, _ in shown.tags] == [tag for tag, _ in plain.tags]
    assert text.count("&lt;script&gt;hacked = 1") == page(harmless, missing="dull").count("dull")
    assert all(c == "\n" or c.isprintable() for c in text)
    escaped = HOSTILE.replace("\0", "\\x00").replace("\x1b", "\\x1b").replace("\r", "\\r").replace("\x85", "\\x85")
    for c in "\u202e\u2066\ud800\u2028":
        escaped = escaped.replace(c, f"\\u{ord(c):04x}")
    assert shown.texts["pre"][0] == f"\n{escaped}"


def test_blanks_joiners_and_line_ends_stay(model: Model) -> None:
    family = "\U0001f469\u200d\U0001f467"
    model.header["samples"] = [{"step": 1, "text": f"\n\ta\u3000b\u00a0c {family}\r\nnext"}]
    assert Outline(page(model)).texts["pre"][0] == f"\n\n\ta\u3000b\u00a0c {family}\nnext"


def test_letters_of_hangul_that_stand_alone(model: Model) -> None:
    joined, parts = unicodedata.normalize("NFD", "각가"), "\u1100 \u1175\u11b6\u11c2\u1112 \u1161\u1102"
    model.header["samples"] = [{"step": 1, "text": f"{joined} {parts}"}]
    assert Outline(page(model)).texts["pre"][0] == f"\n{joined} ㄱ ㅣㅀㅎㅎ ㅏㄴ"
    for code in [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]:
        assert 0x3131 <= ord(alone(chr(code))) <= 0x3163


def test_losses_that_were_not_measured(model: Model) -> None:
    h = model.header
    h["history"][2] |= {"train_loss": None, "val_loss": None}
    outline = Outline(page(model))
    assert len(outline.having("polyline", **{"class": "val"})) == 2  # a gap
    assert "Step 12: training not measured, validation not measured" in [
        a["aria-label"] for a in outline.having("g", **{"class": "point"})
    ]
    for row in h["history"]:
        row |= {"train_loss": None, "val_loss": None}
    h |= {
        "best": {"step": 0, "val_loss": None},
        "first_loss": None,
        "test_loss": None,
        "samples": [],
        "finished": False,
    }
    text = page(model)
    outline = Outline(text)
    assert outline.texts["h2"] == TITLES
    assert "No loss has been measured yet." in text
    assert "No sample was drawn in training." in text
    assert outline.texts["li"] == ["stopped at step 20 of 20"]
    h["history"] = []
    assert Outline(page(model)).texts["h2"] == TITLES


def test_a_run_without_validation() -> None:
    model = charrnn.train("abc " * 20, hidden_size=4, max_steps=3)
    text = page(model)
    assert Outline(text).texts["h2"] == TITLES
    assert "The run has no validation part" in text
    assert "for want of the validation text: the run has none" in text
    assert 'class="val"' not in text


def test_a_long_run_is_thinned(model: Model) -> None:
    h = model.header
    h["history"] = [h["history"][0] | {"step": i + 1, "val_loss": 3 + 1 / (i + 1)} for i in range(3000)]
    h["best"] = {"step": 1234, "val_loss": 3.0}
    h["samples"] = [{"step": i + 1, "text": str(i + 1)} for i in range(900)]
    outline = Outline(page(model))
    points = [str(a["aria-label"]) for a in outline.having("g", **{"class": "point"})]
    assert len(points) == 41
    assert points[0].startswith("Step 1:")
    assert points[-1].startswith("Step 3,000:")
    assert sum("Step 1,234:" in point and "(best)" in point for point in points) == 1
    (line,) = outline.having("polyline", **{"class": "val"})
    assert len(str(line["points"]).split()) == 3000
    steps = [int(text) for text in outline.texts["pre"][:24]]
    assert (steps[0], steps[-1], steps) == (1, 900, sorted(set(steps)))
    assert "What it wrote while it learned, in order, 24 of 900." in outline.texts["p"]


def test_trouble_is_told(model: Model) -> None:
    model.header["trouble"] = [
        {"step": 3, "what": "the loss is nan", "restored": False},
        {"step": 1500, "what": "the loss is inf", "restored": True},
    ]
    assert Outline(page(model)).texts["li"][-2 - len(model.header["notes"]) :][:2] == [
        "step 3: the loss is nan; this window was left out, and the learning rate was halved",
        "step 1,500: the loss is inf; the best weights came back, and the learning rate was halved",
    ]


def test_an_exported_model_has_no_report(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model.npz")
    with pytest.raises(CheckpointError, match="weights alone"):
        page(charrnn.load(tmp_path / "model.npz"))


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.booleans())
def test_ticks_are_round_and_hold_the_values(low: float, length: float, whole: bool) -> None:
    t = ticks(low, low + length, whole=whole)
    assert 2 <= len(t) <= 7
    assert t[0] <= low + 1e-6
    assert t[-1] >= low + length - 1e-6
    assert np.diff(t) == pytest.approx(t[1] - t[0])
    assert not whole or all(v == int(v) for v in t)


@given(st.integers(0, 500), st.integers(2, 50))
def test_places_are_spread(n: int, most: int) -> None:
    places = spread(n, most)
    assert len(places) == min(n, most)
    assert places == sorted(set(places))
    assert not n or (places[0], places[-1]) == (0, n - 1)


# --- the command ---

TRAIN = ("--hidden-size", "8", "--max-steps", "6", "--eval-every", "3", "--seq-length", "16", "-q")


@pytest.mark.parametrize("options", ["", "--unit jamo", "--unit byte", "--by line", "--by file", "--min-count 40"])
def test_of_every_unit(cli: Cli, tmp_path: Path, options: str) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "이야기").mkdir()
    for i in range(20):
        text = "".join(" ".join(rng.choice(["가나다", "한글은", "é", "the", "각각"], 4)) + "\n" for _ in range(20))
        (tmp_path / "이야기" / f"{i:02}.txt").write_text(text, encoding="utf-8")
    cli("train", "이야기", *TRAIN, *options.split())
    done = cli("report", "checkpoints/이야기.npz")
    assert done.stdout == b""
    data = (tmp_path / "이야기.html").read_bytes()
    assert done.stderr.decode() == f"이야기.html: written, {len(data):,} bytes\n"
    outline = Outline(data.decode())
    assert outline.texts["h1"] == ["이야기"]
    assert outline.texts["h2"] == TITLES
    each = {"--unit jamo": "syllable", "--unit byte": "byte"}.get(options, "character")
    assert f"Losses are for each {each}." in outline.texts["p"]
    gate = [cell for cell in outline.texts["td"] if cell][-6:]
    assert gate[0] == "z"
    pieces = outline.texts["pre"]
    if options == "--unit byte":  # bytes are read as UTF-8, as far as they are that
        assert "\\x" in pieces[0]
    if options == "--by line":
        header = charrnn.load(tmp_path / "checkpoints" / "이야기.npz").header
        assert pieces[-6].count("\n") >= 2
        assert any("begun afresh" in note for note in header["notes"])


def test_the_command(cli: Cli, text: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(text)
    cli("train", "corpus.txt", *TRAIN)
    run = tmp_path / "checkpoints" / "corpus.npz"
    cli("report", run)
    data = (tmp_path / "corpus.html").read_bytes()
    done = cli("report", run, rc=2)
    assert done.stderr == b"charrnn: corpus.html exists already; --force overwrites it\n"
    (tmp_path / "corpus.html").write_text("old")
    cli("report", run, "--force")
    assert (tmp_path / "corpus.html").read_bytes() == data
    done = cli("report", run, "-o", "-")
    assert done.stdout == data
    assert done.stderr == f"standard output: written, {len(data):,} bytes\n".encode()
    cli("report", run, "-o", "other.html")
    assert (tmp_path / "other.html").read_bytes() == data
    cli("report", run, "-o", "no/folder.html", rc=7)
    cli("report", "none.npz", rc=4)
    cli("export", run, "-o", "model.npz")
    done = cli("report", "model.npz", rc=4)
    assert done.stderr.startswith(b"charrnn: model.npz: weights alone")
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "model.html").exists()


@pytest.mark.parametrize(("change", "told"), [("change", "trained on another text"), ("delete", "corpus.txt")])
def test_without_the_text(cli: Cli, text: str, tmp_path: Path, change: str, told: str) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(text)
    cli("train", "corpus.txt", *TRAIN)
    if change == "change":
        corpus.write_text(text.upper())
    else:
        corpus.unlink()
    outline = Outline(cli("report", "checkpoints/corpus.npz", "-o", "-").stdout.decode())
    assert outline.texts["h2"] == TITLES
    absent = [p for p in outline.texts["p"] if p.startswith("Left out, for want of the validation text: ")]
    assert absent
    assert all(told in p for p in absent)
