"""``charrnn show``: highlighted text, neurons and gates."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import charrnn
from charrnn.analysis import surprisal
from charrnn.analysis.neurons import gate_saturation, rank_neurons
from charrnn.cli.show import color_depth
from charrnn.drawing import highlight
from tests.conftest import Cli


def test_text_is_marked_in_a_pipe(cli: Cli, run: Path) -> None:
    text = "the k\tng\n한국 ☃\n"
    env = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    done = cli("show", run, "-", stdin=text.encode(), env=env)
    bits = surprisal.score_text(charrnn.load(run), text).bits
    lines = highlight.render_lines(text, bits.tolist(), highlight.SURPRISAL_SCALE, 0, 80)
    assert done.stdout.decode() == "".join(lines)
    assert done.stdout.count(b"\n") == 4
    path, caption, legend = done.stderr.decode().splitlines()
    assert path == f"charrnn: {run}"
    assert caption == (
        f"charrnn: standard input, surprisal under {run}: "
        f"{len(text)} characters, {bits.mean():.3f} bits per character"
    )
    assert "'@' 9+" in legend


def test_length_limits_the_text(cli: Cli, run: Path, text: str) -> None:
    done = cli("show", run, "corpus.txt", "--length", "7", "--color", "always")
    out = re.sub("\x1b\\[[0-9;]*m", "", done.stdout.decode())
    assert out == text[:7] + "\n"
    assert f"the first 7 of {len(text):,} characters" in done.stderr.decode()


@pytest.mark.parametrize(
    ("color", "env", "terminal", "depth"),
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
def test_color_depth_depends_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, color: str, env: dict[str, str], terminal: bool, depth: int
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert color_depth(color) == depth


def test_html_page_has_the_highlighted_text(cli: Cli, run: Path, text: str) -> None:
    done = cli("show", run, "corpus.txt", "--html", "page.html", "-n", "50")
    assert done.stdout == b""
    page = Path("page.html").read_text(encoding="utf-8")
    assert highlight.render_html(charrnn.load(run), text, 50) in page
    assert f"<h1>corpus.txt, surprisal under {run}</h1>" in page
    cli("show", run, "corpus.txt", "--html", "page.html", "--neuron", "0:7", "--force")
    page = Path("page.html").read_text(encoding="utf-8")
    assert highlight.render_html(charrnn.load(run), text, neuron=(0, 7)) in page
    assert f"<h1>hidden unit 0:7 of {run} on corpus.txt</h1>" in page


def test_probe_lists_the_best_neurons_and_shows_the_first(cli: Cli, run: Path, text: str) -> None:
    model = charrnn.load(run)
    best = rank_neurons(model.network, model.vocabulary, text, "line-position", model.documents)[
        :10
    ]
    out = cli("show", run, "corpus.txt", "--probe", "line-position", "-n", "40").stdout.decode()
    table, _, shown = out.partition("\n\n")
    head, *rows = table.split("\n")
    assert head == "neuron\tR², line-position"
    assert rows == [f"{layer}:{i}\t{score:.3f}" for layer, i, score in best]
    values = surprisal.activation(model, text[:40], *best[0][:2]).tolist()
    lines = highlight.render_lines(text[:40], values, highlight.ACTIVATION_SCALE, 0, 80)
    assert shown == "".join(lines)
    neuron = "{}:{}".format(*best[0])
    assert cli("show", run, "corpus.txt", "--neuron", neuron, "-n", "40").stdout.decode() == shown


def test_gates_are_shown_as_a_table(cli: Cli, run: Path, text: str) -> None:
    model = charrnn.load(run)
    ids = model.vocabulary.encode(text)
    fractions = gate_saturation(model.network, ids, model.vocabulary.start_id, None)
    head, *rows = cli("show", run, "corpus.txt", "--gates").stdout.decode().splitlines()
    assert head == "layer\tgate\tunder 0.1\tover 0.9"
    assert [row.split("\t")[:2] for row in rows] == [["0", name] for name in fractions]
    shown = [[float(x) for x in row.split("\t")[2:]] for row in rows]
    np.testing.assert_allclose(shown, [layers[0] for layers in fractions.values()], atol=6e-4)


@pytest.mark.parametrize(
    ("args", "rc", "message"),
    [
        ((), 2, "missing text file"),
        (("corpus.txt", "corpus.txt"), 2, "give one FILE, not 2"),
        (("none.txt",), 3, "none.txt: no such file"),
        (("empty.txt",), 3, "the text is empty"),
        (("empty.txt", "--html", "x.html"), 3, "the text is empty"),
        (("empty.txt", "--gates"), 3, "none of the text"),
        (("empty.txt", "--probe", "quote"), 3, "is constant in one half"),
        (("latin.txt",), 3, "latin.txt"),
        (("corpus.txt", "--neuron", "0:12"), 2, "0:0 to 0:11"),
        (("corpus.txt", "--neuron", "7"), 2, "'7' must be LAYER:INDEX, for example 0:17"),
        (("corpus.txt", "--neuron", "0:1", "--probe", "quote"), 2, "mutually exclusive"),
        (("corpus.txt", "--gates", "--html", "x.html"), 2, "mutually exclusive"),
        (("corpus.txt", "--html", "corpus.txt/page.html"), 7, "page.html"),
        (("corpus.txt", "--length", "0"), 2, "length"),
    ],
)
def test_show_refuses_bad_arguments(
    cli: Cli, run: Path, args: tuple[str, ...], rc: int, message: str
) -> None:
    Path("empty.txt").touch()
    Path("latin.txt").write_bytes(b"caf\xe9")
    done = cli("show", run, *args, rc=rc)
    assert message in done.stderr.decode()
    assert done.stdout == b""


def test_gates_of_a_cell_without_gates_are_refused(cli: Cli, text: str) -> None:
    charrnn.train(text, cell="vanilla", hidden_size=4, max_steps=1, output=Path("v.npz"))
    err = cli("show", "v.npz", "-", "--gates", stdin=text.encode(), rc=2).stderr
    assert b"this model's cell (vanilla) has no gates" in err
