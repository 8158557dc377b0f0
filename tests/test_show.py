"""``charrnn show``: what goes where, in which colours, and what ends it."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import charrnn
from charrnn import shades, surprise
from charrnn.cli.show import color_depth
from charrnn.neurons import gate_saturation, rank_neurons
from tests.conftest import Cli


@pytest.fixture
def run(tmp_path: Path, text: str) -> Path:
    charrnn.train(text, hidden_size=8, max_steps=20, output=tmp_path / "run.npz")
    (tmp_path / "t.txt").write_text(text, encoding="utf-8", newline="\n")
    return tmp_path / "run.npz"


def test_marks_in_a_pipe(cli: Cli, run: Path) -> None:
    shown = "the k\tng\n한국 ☃\n"
    done = cli("show", run, "-", stdin=shown.encode(), env={"TERM": "xterm-256color", "COLORTERM": "truecolor"})
    bits = surprise.score_text(charrnn.load(run), shown).bits
    want = "".join(shades.render_lines(shown, bits.tolist(), shades.SURPRISAL_SCALE, 0, 80))
    assert done.stdout.decode() == want
    assert len(want.splitlines()) == 4
    told = done.stderr.decode()
    assert f"{len(shown)} characters, {bits.mean():.3f} bits per character" in told
    assert "'@' 9+" in told


def test_length_is_the_most_that_is_shown(cli: Cli, run: Path, text: str) -> None:
    done = cli("show", run, "t.txt", "--length", "7", "--color", "always")
    out = re.sub("\x1b\\[[0-9;]*m", "", done.stdout.decode())
    assert out == text[:7] + "\n"
    assert f"the first 7 of {len(text):,} characters" in done.stderr.decode()


@pytest.mark.parametrize(
    ("color", "env", "terminal", "bits"),
    [
        ("auto", {"TERM": "xterm-256color", "COLORTERM": "truecolor"}, True, 24),
        ("auto", {"TERM": "xterm-256color", "COLORTERM": "24bit"}, True, 24),
        ("auto", {"TERM": "screen-256color"}, True, 8),
        ("auto", {"TERM": "xterm"}, True, 4),
        ("auto", {"TERM": "dumb", "COLORTERM": "truecolor"}, True, 0),
        ("auto", {}, True, 0),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, True, 0),
        ("auto", {"TERM": "xterm", "NO_COLOR": ""}, True, 4),
        ("auto", {"TERM": "xterm", "COLORTERM": "truecolor"}, False, 0),
        ("always", {"TERM": "dumb", "NO_COLOR": "1"}, False, 4),
        ("always", {"TERM": "tmux-256color"}, False, 8),
        ("always", {"COLORTERM": "truecolor"}, False, 24),
        ("never", {"TERM": "xterm", "COLORTERM": "truecolor"}, True, 0),
    ],
)
def test_colours(monkeypatch: pytest.MonkeyPatch, color: str, env: dict[str, str], terminal: bool, bits: int) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert color_depth(color) == bits


def test_a_page(cli: Cli, run: Path, text: str, tmp_path: Path) -> None:
    done = cli("show", run, "t.txt", "--html", "page.html", "-n", "50")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert done.stdout == b""
    assert shades.render_html(charrnn.load(run), text, 50) in page
    assert 'charset="utf-8"' in page
    cli("show", run, "t.txt", "--html", "page.html", "--neuron", "0:7")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert shades.render_html(charrnn.load(run), text, neuron=(0, 7)) in page


def test_units(cli: Cli, run: Path, text: str) -> None:
    model = charrnn.load(run)
    best = rank_neurons(model.stack, model.vocabulary, text, "line-position", model.by)
    out = cli("show", run, "t.txt", "--probe", "line-position", "-n", "40").stdout.decode()
    head, _, shown = out.partition("\n\n")
    assert head.split("\n")[0] == "neuron\tR², line-position"
    assert head.split("\n")[1:] == [f"{l}:{i}\t{score:.3f}" for l, i, score in best]
    values = surprise.activation(model, text[:40], *best[0][:2])
    assert shown == "".join(shades.render_lines(text[:40], values.tolist(), shades.ACTIVATION_SCALE, 0, 80))
    named = cli("show", run, "t.txt", "--neuron", "{}:{}".format(*best[0]), "-n", "40")
    assert named.stdout.decode() == shown


def test_gates(cli: Cli, run: Path, text: str) -> None:
    model = charrnn.load(run)
    ids = model.vocabulary.encode(text)
    shares = gate_saturation(model.stack, ids, model.vocabulary.start_id, None)
    head, *rows = cli("show", run, "t.txt", "--gates").stdout.decode().splitlines()
    assert head == "layer\tgate\tunder 0.1\tover 0.9"
    assert [row.split("\t")[:2] for row in rows] == [["0", name] for name in shares]
    found = [[float(x) for x in row.split("\t")[2:]] for row in rows]
    np.testing.assert_allclose(found, [each[0] for each in shares.values()], atol=6e-4)


@pytest.mark.parametrize(
    ("args", "rc", "message"),
    [
        ((), 2, "missing text file"),
        (("t.txt", "t.txt"), 2, "give one FILE, not 2"),
        (("none.txt",), 3, "none.txt: no such file"),
        (("empty.txt",), 3, "the text is empty"),
        (("empty.txt", "--html", "x.html"), 3, "the text is empty"),
        (("empty.txt", "--gates"), 3, "none of the text"),
        (("empty.txt", "--probe", "quote"), 3, "is constant in one half"),
        (("latin.txt",), 3, "latin.txt"),
        (("t.txt", "--neuron", "0:8"), 2, "0:0 to 0:7"),
        (("t.txt", "--neuron", "7"), 2, "LAYER:INDEX"),
        (("t.txt", "--neuron", "0:1", "--probe", "quote"), 2, "mutually exclusive"),
        (("t.txt", "--gates", "--html", "x.html"), 2, "mutually exclusive"),
        (("t.txt", "--html", "no/such/folder.html"), 7, "folder.html"),
        (("t.txt", "--length", "0"), 2, "length"),
    ],
)
def test_what_cannot_be_shown(
    cli: Cli, run: Path, tmp_path: Path, args: tuple[str, ...], rc: int, message: str
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    done = cli("show", run, *args, rc=rc)
    assert message in done.stderr.decode()
    assert done.stdout == b""


def test_a_cell_without_gates_and_a_missing_checkpoint(cli: Cli, text: str, tmp_path: Path) -> None:
    charrnn.train(text, cell="vanilla", hidden_size=4, max_steps=1, output=tmp_path / "v.npz")
    assert b"no gates" in cli("show", "v.npz", "-", "--gates", stdin=text.encode(), rc=2).stderr
    assert b"none.npz" in cli("show", "none.npz", "-", rc=4).stderr
