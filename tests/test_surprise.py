"""Surprise: against one step at a time, with full distributions; and the page that shows it."""

import json
import math
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn import shades, surprise, units
from charrnn.arrays import Array
from charrnn.errors import TextError, UsageError
from charrnn.model import Model
from charrnn.stack import Stepper

KOREAN = "옛날 옛적에 한 사람이 살았다.\n그는 말했다: 값, 닭, 흙!\n" * 5
TRAIN = {"hidden_size": 5, "max_steps": 3, "dtype": "float64", "seed": 2}


def trained(text: str | bytes, **options: Any) -> Model:
    model = charrnn.train(text, **{**TRAIN, **options})
    model.stack.p.vector *= 3  # so that it is sure of some things
    return model


def naive(model: Model, text: str | bytes) -> tuple[list[float], list[Array]]:
    """Return -log p of each symbol and the distribution there: each step alone, character by character."""
    v = model.vocabulary
    symbols = [units.encode(text[i : i + 1], v.unit).tolist() for i in range(len(text))]
    nats, p, step, last = [], [], Stepper(model.stack, model.stack.zero_state(1)), v.start
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
            if model.by == "line" and last == ord("\n"):
                step, i = Stepper(model.stack, model.stack.zero_state(1)), int(v.start_id[0])
            logits = step(np.array([i]))[:, 0].copy()
    return nats, p


CASES: dict[str, tuple[str | bytes, dict[str, Any], int]] = {
    "vanilla": ("the queen?\nand a king", {"cell": "vanilla"}, 9),
    "gru": ("the queen?\nand a king", {"cell": "gru"}, 9),
    "lstm": ("the queen?\nand a king", {"cell": "lstm", "num_layers": 2}, 9),
    "unknown": ("☃the☃☃ king\n☃and☃", {}, 1),
    "all unknown": ("☃é☃", {}, 1),
    "line": ("the king\n\nand a queen\n☃not\n", {"by": "line"}, 5),
    "line, unknown last": ("the king\n☃", {"by": "line"}, 1),
    "byte": (b"the king\xff\x00\nand", {"unit": "byte"}, 5),
}


@pytest.mark.parametrize("name", CASES)
def test_predictions_are_those_of_each_step(text: str, name: str) -> None:
    shown, options, times = CASES[name]
    check(trained(text.encode() if isinstance(shown, bytes) else text, **options), shown * times)


@pytest.mark.parametrize("unit", ["char", "jamo"])
def test_predictions_of_hangul(unit: str) -> None:
    check(trained(KOREAN, unit=unit), "옛날 값 ☃쀍, 사람.\n" * 7)  # of 쀍 no letter but the last is known


def check(model: Model, shown: str | bytes) -> None:
    nats, likeliest, p = surprise.top_predictions(model, shown)
    want, distributions = naive(model, shown)
    np.testing.assert_allclose(nats, want, rtol=1e-10)
    everything = np.array(distributions)
    order = np.argsort(-everything, axis=1)[:, :5]
    np.testing.assert_array_equal(likeliest, order)
    np.testing.assert_allclose(p, np.take_along_axis(everything, order, 1), rtol=1e-10)
    if len(shown) < 2000:  # longer ones are scored in lanes
        bits = surprise.reading(model, shown).bits
        np.testing.assert_allclose(bits, model.score(shown, unknown="cost") / math.log(2), rtol=1e-10)


def test_likeliest_of_few_symbols_and_of_equals() -> None:
    model = trained("ab" * 50)
    model.stack.p.vector[:] = 0
    nats, likeliest, p = surprise.top_predictions(model, "abb")
    np.testing.assert_allclose(nats, math.log(2))
    assert likeliest.tolist() == [[0, 1]] * 3
    np.testing.assert_allclose(p, 0.5)


@pytest.mark.filterwarnings("error")
def test_a_model_past_saving_gives_numbers(text: str) -> None:
    model = trained(text, dtype="float32")
    model.stack.p.vector[:] = 3e38
    assert np.isfinite(surprise.reading(model, text[:100]).bits).all()


@pytest.mark.parametrize("options", [{"cell": "gru"}, {"cell": "lstm", "num_layers": 2}, {"by": "line"}])
def test_activation_is_that_of_each_step(text: str, options: dict[str, Any]) -> None:
    model = trained(text, **options)
    stack, shown = model.stack, "the☃ king\nand a queen\n☃☃" * 5
    layer, index = stack.num_layers - 1, 3
    want, state, value, last = [], stack.zero_state(1), 0.0, None
    for c in [None, *shown]:
        i = model.vocabulary.start if c is None else ord(c)
        at = model.vocabulary.id(i)
        if at is not None:
            if last == "\n" and model.by:
                state = stack.zero_state(1)
                state = stack.forward(model.vocabulary.start_id[:, None], state, stack.new_tape(1, 1)).copy()
            state = stack.forward(np.array([[at]]), state, stack.new_tape(1, 1)).copy()
            value = (
                float(np.tanh(state[layer, 1, index, 0])) if len(state[0]) == 2 else float(state[layer, 0, index, 0])
            )
            last = c
        if c is not None:
            want.append(value if last is not None else 0.0)
    np.testing.assert_allclose(surprise.activation(model, shown, layer, index), want, rtol=1e-10)
    assert surprise.activation(model, "☃☃", 0, 0).tolist() == [0, 0]
    for bad in ((-1, 0), (stack.num_layers, 0), (0, -1), (0, 5)):
        with pytest.raises(UsageError, match=f"0:0 to {stack.num_layers - 1}:4"):
            surprise.activation(model, shown, *bad)


def test_activation_of_a_syllable_is_that_after_its_last_letter() -> None:
    model = trained(KOREAN, unit="jamo")
    one, two = surprise.activation(model, "값", 0, 0), surprise.activation(model, "값 말", 0, 0)
    ids = model.vocabulary.encode("값")
    state = model.stack.forward(
        np.concatenate([model.vocabulary.start_id, ids])[:, None], model.stack.zero_state(1), model.stack.new_tape(4, 1)
    )
    assert one.shape == (1,)
    assert two.shape == (3,)
    np.testing.assert_allclose([one[0], two[0]], state[0, 0, 0, 0])


def test_labels() -> None:
    letters = [surprise.label(units.OWN + k, "jamo") for k in range(67)]
    assert "".join(letters[:19]) == "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
    assert "".join(letters[19:40]) == "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
    assert "".join(letters[40:]) == "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
    assert [surprise.label(code, "char") for code in (units.END, units.UNKNOWN, 0xE9)] == ["end", "unknown", "é"]
    assert [surprise.label(code, "byte") for code in (0x41, 0xE9)] == ["A", r"\xe9"]


def test_nothing_to_show(text: str) -> None:
    with pytest.raises(TextError, match="empty"):
        surprise.reading(trained(text), "")


class Page(HTMLParser):
    """What a browser finds: tags in order, the characters of the <pre> with their classes, the data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text: list[tuple[str, str]] = []
        self.data: Any = None
        self.kind = ""
        self.loose = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {name for name, _ in attrs} & {"src", "href", "onclick"}
        self.tags.append(tag)
        self.kind = dict(attrs).get("class") or ""
        if tag not in ("meta", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-2:] == ["pre", "i"]:
            assert self.open[-1] == "i"
            self.text.append((data, self.kind))
        elif "pre" in self.open:
            self.loose += data
        elif self.open[-1:] == ["script"] and data.startswith("{"):
            assert "<" not in data
            self.data = json.loads(data)


HOSTILE = "<script>alert('x')</script> & &lt; \"q\"\t\0\x1b[31m"
HOSTILE += "\u202e\u2066\u200d\r\n\n</pre><!-- \ufeff\u0085한 é👩\U000e0001 e\u0301\n"


def test_the_page_holds_every_character_in_order(text: str) -> None:
    model = trained(text + HOSTILE)
    page = Page(shades.page(surprise.fragment(model, HOSTILE), "<title> & \u202e"))
    assert page.tags.count("script") == 2
    assert page.tags.count("pre") == page.tags.count("title") == 1
    assert page.loose == "\n"  # which a browser drops
    assert len(page.text) == len(HOSTILE)
    r = surprise.reading(model, HOSTILE)
    for c, bits, (found, kind) in zip(HOSTILE, r.bits, page.text, strict=True):
        assert kind.split()[0] == f"b{min(int(bits), 9)}"
        if c.isprintable() or c in "\n\t":
            assert found == c
            assert "e" not in kind.split()
        else:
            assert found == c.encode("unicode_escape").decode()
            assert "e" in kind.split()
        assert ("n" in kind.split()) == (c == "\n")
    d = page.data
    np.testing.assert_allclose(d["bits"], r.bits, atol=0.006)
    np.testing.assert_allclose(d["p"], r.p.ravel(), atol=6e-5)
    assert (d["likeliest"], d["first"], d["ids"]) == (r.likeliest.ravel().tolist(), r.first.tolist(), r.ids.tolist())
    assert len(d["labels"]) == len(model.vocabulary)
    assert d["unit"] is None
    assert all(label.isprintable() for label in d["labels"])
    pre = surprise.fragment(model, HOSTILE).partition("<pre")[2].partition("</pre>")[0]
    assert [pre.count(c) for c in ("&lt;", "&amp;", "&gt;")] == [HOSTILE.count(c) for c in "<&>"]
    assert not any(c in surprise.fragment(model, HOSTILE) for c in "\0\x1b\u202e\u2066\u200d\r\u0085\ufeff")


def test_a_fragment_shaded_by_a_unit_and_cut(text: str) -> None:
    model = trained(text)
    page = Page(surprise.fragment(model, text, 100, (0, 2)))
    values = surprise.activation(model, text[:100], 0, 2)
    assert [kind.split()[0] for _, kind in page.text] == [f"a{math.floor((x + 1) * 3.5)}" for x in values]
    np.testing.assert_allclose(page.data["unit"], values, atol=0.006)
    assert f"the first 100 of {len(text):,} characters" in surprise.fragment(model, text, 100)
    assert f"<p>{len(text):,} characters" in surprise.fragment(model, text, len(text))


def test_bytes_are_told_apart() -> None:
    model = trained("é한\n".encode() * 30, unit="byte")
    page = Page(surprise.fragment(model, "é\\\n"))  # of a str its bytes
    assert [found for found, _ in page.text] == [r"\xc3", r"\xa9", "\\", "\n"]
    assert ["e" in kind.split() for _, kind in page.text] == [True, True, False, False]
    assert "4 bytes" in surprise.fragment(model, "é\\\n")
