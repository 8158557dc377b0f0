"""Activations, gates and linear probes, against planted hidden units and naive computations."""

from typing import Any

import numpy as np
import pytest

from charrnn.analysis import neurons
from charrnn.arrays import Array
from charrnn.config import CELLS
from charrnn.errors import TextError
from charrnn.network import Network
from charrnn.text.vocabulary import Vocabulary
from tests.conftest import random_network

V = 7  # symbols of random_network


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_activations_and_saturation_match_one_long_batch(cell: str) -> None:
    network = random_network(cell, 2, 2)
    ids, context = np.random.default_rng(1).integers(0, V, (200,)), np.array([3, 1])
    tape = network.new_tape(202, 1)
    network.forward(np.concatenate([context, ids])[:, None], network.zero_state(1), tape)
    chunks = list(neurons.activations(network, ids, context))
    assert max(map(len, chunks)) <= neurons.CHUNK_STEPS
    got = np.concatenate(chunks)
    wanted = np.stack([layer.states[-1, 3:, :, 0] for layer in tape.layers], 1)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)

    fractions = neurons.gate_saturation(network, ids, context)
    assert fractions.keys() == network.cell.gate_activations(tape.layers[0].views).keys()
    for gate, fraction in fractions.items():
        values = np.stack(
            [network.cell.gate_activations(layer.views)[gate][2:] for layer in tape.layers]
        )
        wanted = np.stack([(values < 0.1).mean((1, 2, 3)), (values > 0.9).mean((1, 2, 3))], 1)
        np.testing.assert_allclose(fraction, wanted, rtol=0, atol=1e-12)
        assert fraction.max() > 0.1


def test_activations_reset_at_every_document() -> None:
    network, context = random_network("gru", 1), np.array([3])
    ids = np.random.default_rng(1).integers(0, V, 100)
    got = np.concatenate(list(neurons.activations(network, ids, context, np.array([70, 71, 100]))))
    parts: list[Array] = []
    for part in (ids[:70], ids[70:71], ids[71:]):
        parts += neurons.activations(network, part, context)
    np.testing.assert_allclose(got, np.concatenate(parts), rtol=0, atol=1e-12)


def naive_properties(text: str) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {name: [] for name in ("line-position", "indent", "depth", "quote")}
    position = indent = depth = straight = curly = 0
    leading, before = True, ""
    for c in text:
        if c == "\n":
            position, indent, leading = 0, 0, True
            if before == "\n":
                straight = curly = 0
        else:
            position += 1
            leading = leading and c in " \t"
            indent += leading
        depth = depth + 1 if c in "([{" else max(depth - 1, 0) if c in ")]}" else depth
        straight ^= c == '"' and before not in ("\\", "'")
        curly = 1 if c == "“" else 0 if c == "”" else curly
        for name, value in zip(out, (position, indent, depth, straight or curly), strict=True):
            out[name].append(int(value))
        before = c
    return out


def test_properties_match_a_walk_through_the_text() -> None:
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("ab \t\n\n\n()[]{}\"'\\“”é한"), 5000))
    got = neurons.character_properties(text)
    for name, wanted in naive_properties(text).items():
        assert got[name].tolist() == wanted, name
    assert neurons.character_properties("((a)")["depth"].tolist() == [1, 2, 2, 1]
    assert {name for name, y in got.items() if y.dtype == bool} == {"quote", "comment"}
    assert all(len(y) == 0 for y in neurons.character_properties("").values())


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        # known after the second sign, and over with the last
        ("a /* b */ c // d\ne", "* b */ d"),
        ('s = "/* // "; /* x', "* x"),
        ('\'"\' /* x */ "a"', "* x *"),
        ("x # y\n# z\na#b", "# y# z"),
        ("  % tex\n50 % of", "% tex"),
    ],
)
def test_comment_property(text: str, inside: str) -> None:
    found = neurons.character_properties(text)["comment"]
    assert "".join(c for c, y in zip(text, found, strict=True) if y) == inside


def planted(v: Vocabulary, neuron: int, opens: str, closes: str, step: float) -> Network:
    """Return a random LSTM with one planted neuron.

    Its c grows by ``step`` from ``opens`` (empty: from anything) until ``closes``.
    """
    rng = np.random.default_rng(0)
    network = Network("lstm", len(v), 8, 2, np.float64, rng)
    blocks = (network.params[f"0.{name}"].reshape(4, 8, -1) for name in ("Wxh", "Whh", "bh"))
    Wxh, Whh, bh = (block[:, neuron] for block in blocks)
    Wxh[:], Whh[:], bh[:, 0] = 0, 0, (0, 50, 0, np.arctanh(step))
    Wxh[0] = -50
    Wxh[0, v.encode(opens) if opens else slice(None)] = 50
    Wxh[:2, v.encode(closes)] = [[-50], [-100]]
    return network


def verses() -> str:
    rng = np.random.default_rng(0)
    lines = ("".join(rng.choice(list("abcde  “”"), rng.integers(5, 60))) for _ in range(60))
    return "\n".join(lines) + "\n"


def test_neuron_that_counts_since_the_newline_ranks_first() -> None:
    text = verses()
    v = Vocabulary.from_text(text)
    ranks = neurons.rank_neurons(planted(v, 5, "", "\n", 0.01), v, text, "line-position")
    assert ranks[0][:2] == (0, 5)
    assert ranks[0][2] == pytest.approx(1, abs=1e-9)
    assert ranks[1][2] < 0.9
    assert sorted(r[:2] for r in ranks) == [(l, i) for l in range(2) for i in range(8)]
    assert [r[2] for r in ranks] == sorted((r[2] for r in ranks), reverse=True)
    # unknown characters are left out, and the others keep their positions
    more = "".join(c + "é" * (i % 7 == 0) for i, c in enumerate(text))
    ranks = neurons.rank_neurons(planted(v, 5, "", "\n", 0.01), v, more, "line-position")
    assert ranks[0][:2] == (0, 5)


def test_neuron_that_is_on_inside_quotes_ranks_first() -> None:
    words = ["“ab”", "cd", "“e a”", "b c", "d"]
    text = " ".join(np.random.default_rng(0).choice(words, 500))
    v = Vocabulary.from_text(text)
    (best, second, *_) = neurons.rank_neurons(planted(v, 3, "“", "”", 0.9), v, text, "quote")
    assert best[:2] == (0, 3)
    assert best[2] == pytest.approx(1, abs=1e-9)
    assert second[2] < 0.95


@pytest.mark.parametrize("name", ["line-position", "quote"])
def test_scores_match_a_plain_fit(name: str) -> None:
    text = verses()
    v = Vocabulary.from_text(text)
    network = Network("gru", len(v), 8, 2, np.float64, np.random.default_rng(0))
    x = np.concatenate(list(neurons.activations(network, v.encode(text), v.start_id)))
    values: Any = neurons.character_properties(text)[name]
    half = len(text) // 2
    train_y, y = np.split(values, [half])
    for l, i, score in neurons.rank_neurons(network, v, text, name):
        train_x, test_x = np.split(x[:, l, i], [half])
        if name == "quote":
            on, off = (train_x[train_y == side].mean() for side in (True, False))
            is_right = ((test_x > (on + off) / 2) == (on > off)) == y
            wanted = np.mean([is_right[y == side].mean() for side in (True, False)])
        else:
            a, b = np.polyfit(train_x, train_y, 1)
            wanted = 1 - ((y - a * test_x - b) ** 2).mean() / y.var()
        assert score == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("by", [None, "line"])
@pytest.mark.parametrize(
    ("unit", "text"),
    [("byte", "가나\n (b“c”)\n"), ("jamo", "한 (글\n각)자\n"), ("char", "a(b)\nc\n")],
)
def test_every_text_unit_can_be_probed(unit: str, text: str, by: str | None) -> None:
    v = Vocabulary.from_text(text, unit)
    network = Network("gru", len(v), 4, 1, np.float32, np.random.default_rng(0))
    ranks = neurons.rank_neurons(network, v, text * 30, "depth", by)
    assert len(ranks) == 4
    assert all(np.isfinite(score) for _, _, score in ranks)


def test_constant_property_is_rejected() -> None:
    v = Vocabulary.from_text("ab\n")
    with pytest.raises(TextError, match="'quote' is constant"):
        neurons.rank_neurons(Network("gru", 3, 4, 1), v, "ab\n" * 30, "quote")
    with pytest.raises(TextError, match="'depth' is constant"):
        neurons.rank_neurons(Network("gru", 3, 4, 1), v, "", "depth")


def test_dead_neuron_does_not_beat_chance() -> None:
    v = Vocabulary.from_text(verses())
    network = Network("gru", len(v), 4, 1)
    for name in ("line-position", "quote"):
        for _, _, score in neurons.rank_neurons(network, v, verses(), name):
            assert score < 0.51
