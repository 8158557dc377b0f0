"""Surprisal: compared with one step at a time, with full distributions."""

import math
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.analysis import surprisal
from charrnn.arrays import Array
from charrnn.errors import TextError, UsageError
from charrnn.model import Model
from charrnn.network import Stepper
from charrnn.text import units

KOREAN = "옛날 옛적에 한 사람이 살았다.\n그는 말했다: 값, 닭, 흙!\n" * 5
TRAIN = {"hidden_size": 5, "max_steps": 3, "dtype": "float64", "seed": 2}


def trained(text: str | bytes, **options: Any) -> Model:
    model = charrnn.train(text, **{**TRAIN, **options})
    model.network.params.vector *= 3  # so that some predictions are confident
    return model


def naive(model: Model, text: str | bytes) -> tuple[list[float], list[Array]]:
    """Return -log p and the distribution at each symbol, from one step at a time."""
    v = model.vocabulary
    symbols = [units.to_codes(text[i : i + 1], v.unit).tolist() for i in range(len(text))]
    nats, p, step, last = (
        [],
        [],
        Stepper(model.network, model.network.zero_state(1)),
        v.start_symbol,
    )
    logits = step(v.start_id)[:, 0].copy()
    for codes in symbols:
        ids = [v.id(code) for code in codes]
        for k, i in enumerate(ids):
            now = np.exp(logits - logits.max())
            p.append(now / now.sum())
            if None in ids:
                nats.append(0 if k else math.log(256 if v.unit == "byte" else 0x110000))
                continue
            assert i is not None
            nats.append(-math.log(p[-1][i]))
            last = codes[k]
            if model.documents == "line" and last == ord("\n"):
                step, i = Stepper(model.network, model.network.zero_state(1)), int(v.start_id[0])
            logits = step(np.array([i]))[:, 0].copy()
    return nats, p


CASES: dict[str, tuple[str | bytes, dict[str, Any], int]] = {
    "vanilla": ("the queen?\nand a king", {"cell": "vanilla"}, 9),
    "gru": ("the queen?\nand a king", {"cell": "gru"}, 9),
    "lstm": ("the queen?\nand a king", {"cell": "lstm", "num_layers": 2}, 9),
    "unknown": ("☃the☃☃ king\n☃and☃", {}, 1),
    "all unknown": ("☃é☃", {}, 1),
    "line": ("the king\n\nand a queen\n☃not\n", {"documents": "line"}, 5),
    "line, unknown last": ("the king\n☃", {"documents": "line"}, 1),
    "byte": (b"the king\xff\x00\nand", {"unit": "byte"}, 5),
    # of 쀍 only the last jamo is known
    "hangul": ("옛날 값 ☃쀍, 사람.\n", {}, 7),
    "jamo": ("옛날 값 ☃쀍, 사람.\n", {"unit": "jamo"}, 7),
}


@pytest.mark.parametrize("name", CASES)
def test_predictions_match_each_step_alone(text: str, name: str) -> None:
    shown, options, times = CASES[name]
    shown *= times
    text = KOREAN if name in ("hangul", "jamo") else text
    model = trained(text.encode() if isinstance(shown, bytes) else text, **options)
    nats, top_ids, p = surprisal.top_predictions(model, shown)
    wanted, distributions = naive(model, shown)
    np.testing.assert_allclose(nats, wanted, rtol=1e-10)
    everything = np.array(distributions)
    order = np.argsort(-everything, axis=1)[:, :5]
    np.testing.assert_array_equal(top_ids, order)
    np.testing.assert_allclose(p, np.take_along_axis(everything, order, 1), rtol=1e-10)
    if len(shown) < 2000:  # longer ones are scored in lanes
        bits = model.nll(shown, unknown="cost") / math.log(2)
        np.testing.assert_allclose(surprisal.score_text(model, shown).bits, bits, rtol=1e-10)


def test_top_predictions_of_few_symbols_and_of_ties() -> None:
    model = trained("ab" * 50)
    model.network.params.vector[:] = 0
    nats, top_ids, p = surprisal.top_predictions(model, "abb")
    np.testing.assert_allclose(nats, math.log(2))
    assert top_ids.tolist() == [[0, 1]] * 3
    np.testing.assert_allclose(p, 0.5)


@pytest.mark.filterwarnings("error")
def test_diverged_model_gives_finite_bits(text: str) -> None:
    model = trained(text, dtype="float32")
    model.network.params.vector[:] = 3e38
    assert np.isfinite(surprisal.score_text(model, text[:100]).bits).all()


@pytest.mark.parametrize(
    "options", [{"cell": "gru"}, {"cell": "lstm", "num_layers": 2}, {"documents": "line"}]
)
def test_activation_matches_each_step_alone(text: str, options: dict[str, Any]) -> None:
    model = trained(text, **options)
    network, v, shown = model.network, model.vocabulary, "☃the king\nand a queen\n☃☃" * 5
    layer, index, tape = network.num_layers - 1, 3, model.network.new_tape(1, 1)
    start = network.forward(v.start_id[:, None], network.zero_state(1), tape).copy()
    wanted, state, last = [], start, ""
    for c in shown:
        if (i := v.id(ord(c))) is not None:
            state = start if last == "\n" and model.documents else state
            state = network.forward(np.array([[i]]), state, tape).copy()
            last = c
        h_or_c = state[layer, -1, index, 0]  # c for an LSTM
        wanted.append((np.tanh(h_or_c) if len(state[0]) == 2 else h_or_c) if last else 0.0)
    np.testing.assert_allclose(surprisal.activation(model, shown, layer, index), wanted, rtol=1e-10)
    assert surprisal.activation(model, "☃☃", 0, 0).tolist() == [0, 0]
    for bad in ((-1, 0), (network.num_layers, 0), (0, -1), (0, 5)):
        with pytest.raises(UsageError, match=f"0:0 to {network.num_layers - 1}:4"):
            surprisal.activation(model, shown, *bad)


def test_activation_of_a_syllable_is_after_its_last_jamo() -> None:
    model = trained(KOREAN, unit="jamo")
    one, two = surprisal.activation(model, "값", 0, 0), surprisal.activation(model, "값 말", 0, 0)
    xs = np.concatenate([model.vocabulary.start_id, model.vocabulary.encode("값")])[:, None]
    state = model.network.forward(xs, model.network.zero_state(1), model.network.new_tape(4, 1))
    assert (one.shape, two.shape) == ((1,), (3,))
    np.testing.assert_allclose([one[0], two[0]], state[0, 0, 0, 0])


def test_empty_text_is_rejected(text: str) -> None:
    with pytest.raises(TextError, match="empty"):
        surprisal.score_text(trained(text), "")
