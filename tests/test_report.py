"""The report of a run: its content, and its command."""

from __future__ import annotations

import copy
import math
import re
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.analysis.neurons import gate_saturation
from charrnn.drawing.highlight import escape_inline
from charrnn.drawing.report import TEMPERATURES, preformatted, render_report
from charrnn.errors import CheckpointError
from charrnn.formatting import standalone_jamo
from charrnn.model import Model
from tests.conftest import Cli
from tests.pages import ESCAPES, HOSTILE, Page

TITLES = [
    "From noise to words",
    "Loss",
    "Comparison with baselines",
    "Samples at four temperatures",
    "Surprisal per character",
    "Samples during training",
    "Corpus and model",
    "Gate saturation",
    "Problems and notes",
    "Reproducing this run",
]
QUICK: dict[str, Any] = {"hidden_size": 8, "max_steps": 20, "eval_every": 4, "sample_every": 5}


@pytest.fixture
def model(run: Path) -> Model:
    return charrnn.load(run)


def run_state(model: Model) -> Any:
    return model.state


def test_report_has_every_section_and_is_reproducible(model: Model) -> None:
    html = render_report(model, "the king of night\n")
    page = Page(html)
    assert page.texts["h2"] == TITLES
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert not re.search(r"https?:|url\(|@import", html)
    assert html == render_report(model, "the king of night\n")


def test_numbers_match_the_header(model: Model) -> None:
    state = run_state(model)
    loss, step = state.best["val_loss"], state.best["step"]
    page = Page(render_report(model))
    rows = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    bits = loss / math.log(2)
    assert rows["best validation loss"] == f"{loss:.4f} nats ({bits:.3f} bits), step {step}"
    assert rows["test loss"].startswith(f"{state.test_loss:.4f} nats")
    assert rows["training split"] == f"{state.corpus['split_characters']['train']:,} characters"
    assert rows["parameters"] == f"{state.parameters:,}"
    assert rows["SHA-256 of the corpus"] == state.corpus["sha256"]
    assert rows["files"].endswith("corpus.txt")
    assert rows["seed"] == "0"
    assert page.texts["pre"][-1] == f"\n{state.command}"
    best_loss, best_name = min((loss, name) for name, loss in state.baselines["val"].items())
    assert page.texts["p"][0] == (
        "A GRU with 1 layer of 12 hidden units, trained on corpus for 30 steps. Validation loss: "
        f"{loss:.3f} nats per character (best baseline: {best_name}, {best_loss:.3f})."
    )
    assert len(page.of_class("g", "point")) == len(state.history)

    state.corpus["num_files"] = 1001
    assert "corpus.txt<br>and 1,000 more</dd>" in render_report(model)


def test_model_is_compared_with_the_baselines_in_order(model: Model) -> None:
    state = run_state(model)
    page = Page(render_report(model))
    val = {**state.baselines["val"], "model": state.best["val_loss"]}
    test = {**state.baselines["test"], "model": state.test_loss}
    order = sorted(val, key=val.__getitem__, reverse=True)
    assert page.texts["td"] == [
        cell
        for name in order
        for cell in (f"{val[name]:.3f}", f"{val[name] / math.log(2):.3f}", f"{test[name]:.3f}", "")
    ]
    widths = [float(str(i["style"])[6:-1]) for i in page.with_tag("i") if i.get("style")]
    assert widths == pytest.approx([100 * val[name] / val["uniform"] for name in order], abs=0.06)


def test_samples_are_in_order_and_at_four_temperatures(model: Model) -> None:
    samples = run_state(model).samples
    old = [sample["text"].removesuffix("\n") for sample in samples]
    new = ["".join(model.sample(300, seed=0, temp=temp)).rstrip("\n") for temp in TEMPERATURES]
    page = Page(render_report(model))
    assert len(old) == 11
    head, rest = page.texts["pre"][:4], page.texts["pre"][4:-1]
    assert rest == ["\n" + text for text in [*new, *old]]
    titles = [title.split(",")[0] for title in page.texts["h3"]]
    wanted = [f"Step {sample['step']}" for sample in samples]
    assert titles[4:19] == [f"Temperature {temp}" for temp in TEMPERATURES] + wanted

    # the first screen has the beginnings of four of them
    chosen = [0, 3, 7, 10]
    assert titles[:4] == [wanted[i] for i in chosen]
    for shown, i in zip(head, chosen, strict=True):
        assert old[i].startswith(shown.removeprefix("\n"))
        assert len(shown) > 20

    run_state(model).samples = [{"step": i + 1, "text": str(i + 1)} for i in range(900)]
    page = Page(render_report(model))
    steps_shown = [int(text) for text in page.texts["pre"][8:32]]
    assert (steps_shown[0], steps_shown[-1]) == (1, 900)
    assert steps_shown == sorted(set(steps_shown))
    assert "Samples generated during training, in order (24 of 900)." in page.texts["p"]


@pytest.mark.parametrize(("cell", "names"), [("gru", "zr"), ("lstm", "ifo"), ("vanilla", "")])
def test_gates_are_shown_with_their_saturation(text: str, cell: str, names: str) -> None:
    model = charrnn.train(text, cell=cell, num_layers=2, **QUICK)
    model.network.params.vector[:] *= 4  # so that gates are closed and open
    page = Page(render_report(model, text[:900]))
    ids = model.vocabulary.encode(text[:900])
    fractions = gate_saturation(model.network, ids, model.vocabulary.start_id)
    wanted = [
        cell
        for name in names
        for layer in (0, 1)
        for cell in (name, *(f"{fraction:.1%}" for fraction in fractions[name][layer]))
    ]
    assert [cell for cell in page.texts["td"] if cell][-len(wanted) or 99999 :] == wanted
    assert ("This model's cell (vanilla) has no gates." in page.texts["p"]) == (not names)


def test_hostile_strings_change_nothing_but_the_text(model: Model) -> None:
    harmless = Model(model.network, model.vocabulary, copy.deepcopy(model.state))
    for state, word in ((run_state(harmless), "dull"), (run_state(model), HOSTILE)):
        state.samples = [{"step": 1, "text": word}]
        state.notes, state.command = [word], word
        state.nonfinite_events = [{"step": 3, "reason": word, "restored": True}]
        state.baselines["val"] = {word: 2.0}
        state.init_from = {"file": word}
        state.corpus |= {"name": word, "files": [(word, 1, 1)], "sha256": word}
        state.val_corpus = state.corpus
        state.versions = {"charrnn": word, "numpy": word, "python": word}
    html, plain = render_report(model, missing=HOSTILE), render_report(harmless, missing="dull")
    assert [tag for tag, _ in Page(html).tags] == [tag for tag, _ in Page(plain).tags]
    assert html.count("&lt;script&gt;hacked = 1") == plain.count("dull")
    assert all(c == "\n" or c.isprintable() for c in html)


def test_run_without_validation_omits_its_sections() -> None:
    model = charrnn.train("abc " * 20, hidden_size=4, max_steps=3)
    page = Page(render_report(model))
    assert page.texts["h2"] == TITLES
    assert "This run has no validation split to compare with baselines." in page.texts["p"]
    omitted = "Omitted because the validation text is unavailable: the run has no validation split."
    assert page.texts["p"].count(omitted) == 2
    assert not {"best validation loss", "test loss"} & {*page.texts["dt"]}


def test_report_lists_nonfinite_events(model: Model) -> None:
    no_problem = "None: the run is complete, and all losses and gradients were finite."
    assert no_problem in Page(render_report(model)).texts["p"]
    state = run_state(model)
    state.initial_loss, state.samples, state.finished, state.notes = None, [], False, ["hello"]
    state.nonfinite_events = [
        {"step": 3, "reason": "the loss is nan", "restored": False},
        {"step": 1500, "reason": "the loss is inf", "restored": True},
    ]
    page = Page(render_report(model))
    assert no_problem not in page.texts["p"]
    assert "No samples were generated during training." in page.texts["p"]
    halved = "and the learning rate was halved"
    assert page.texts["li"][-4:] == [
        "stopped at step 30 of 30",
        f"step 3: the loss is nan; the batch was skipped, {halved}",
        f"step 1,500: the loss is inf; the best weights were restored, {halved}",
        "hello",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unit": "jamo"},
        {"unit": "byte"},
        {"unit": "word"},
        {"documents": "line"},
        {"documents": "file"},
        {"min_count": 40},
    ],
)
def test_report_of_every_unit_and_kind_of_document(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(["가나다", "한글은", "é", "the", "각각"], 4)) for _ in range(400)]
    text = "\n".join(lines)
    model = charrnn.train([text[i : i + 200] for i in range(0, 5000, 200)], **QUICK, **options)
    shown = text[:100].encode() if model.unit == "byte" else text[:100]
    page = Page(render_report(model, shown))
    noun = "byte" if model.unit == "byte" else "character"
    assert f"Losses are per {noun}." in page.texts["p"]
    assert len(page.characters) == len(shown)
    assert [cell for cell in page.texts["td"] if cell][-6] == "z"
    assert page.texts["pre"][-3].count("\n") >= (3 if model.documents == "line" else 1)


# --- the pieces of the page ---


def test_preformatted_text_escapes_only_invisible_characters() -> None:
    family = "\U0001f469\u200d\U0001f467"
    kept = f"\n\ta\u3000b\u00a0c {family}\n"
    for text in (kept, f"{HOSTILE}\ud800\r\x85\u2028"):
        page = Page(preformatted(text))
        assert page.texts["pre"] == [f"\n{text.translate(ESCAPES)}"]
        assert [tag for tag, _ in page.tags] == ["pre"]
    assert "\r" not in preformatted("a\r\nb")
    assert Page(f"<p>{escape_inline(HOSTILE)}</p>").texts["p"] == [HOSTILE.translate(ESCAPES)]


def test_preformatted_bytes_are_decoded_where_they_are_utf_8() -> None:
    for text, shown in (
        ("é\xff한".encode().decode("latin-1"), "é\xff한"),
        ("\xff한", r"\xff\ud55c"),
    ):
        assert Page(preformatted(text, "byte")).texts["pre"] == [f"\n{shown}"]


def test_unjoined_jamo_are_shown_separately() -> None:
    joined = unicodedata.normalize("NFD", "각가")
    stray = "\u1100 \u1175\u11b6\u11c2\u1112 \u1161\u1102"
    assert Page(preformatted(f"{joined} {stray}")).texts["pre"] == [f"\n{joined} ㄱ ㅣㅀㅎㅎ ㅏㄴ"]
    for code in [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]:
        assert 0x3131 <= ord(standalone_jamo(chr(code))) <= 0x3163


# --- the command ---


def test_report_is_written_and_nothing_is_overwritten(cli: Cli, run: Path, tmp_path: Path) -> None:
    report = tmp_path / "corpus.html"
    done = cli("report", run)
    data = report.read_bytes()
    read = b"charrnn: the run's text is corpus.txt\n"
    saved = f"saved corpus.html, {len(data):,} bytes\n".encode()
    assert (done.stdout, done.stderr) == (b"", read + saved)
    done = cli("report", run, rc=2)
    assert done.stderr == b"charrnn: corpus.html already exists; use --force to overwrite it\n"
    report.write_text("old")
    cli("report", run, "--force")
    assert report.read_bytes() == data
    done = cli("report", run, "-o", "-")
    assert (done.stdout, done.stderr) == (data, read)
    cli("report", run, "-o", f"{run}/page.html", rc=7)
    cli("report", "none.npz", rc=4)
    for command in ("report", "export"):
        done = cli(command, run, "-o", "checkpoints/../checkpoints/corpus.npz", "--force", rc=2)
        assert b"corpus.npz is read by this command; name another" in done.stderr
    assert charrnn.load(run).state.kind == "run"


def test_exported_model_has_no_report(cli: Cli, run: Path, tmp_path: Path) -> None:
    cli("export", run, "-o", "model.npz")
    done = cli("report", "model.npz", rc=4)
    message = "an exported model; a report needs a training checkpoint"
    assert done.stderr.decode() == f"charrnn: model.npz: {message}\n"
    assert not (tmp_path / "model.html").exists()
    with pytest.raises(CheckpointError, match=message):
        render_report(charrnn.load("model.npz"))


def test_report_names_the_reason_for_a_missing_validation_text(
    cli: Cli, run: Path, text: str, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(text.upper())
    changed = cli("report", run, "-o", "-").stdout.decode()
    corpus.unlink()
    missing = cli("report", run, "-o", "-").stdout.decode()
    for html, reason in ((changed, "a different text"), (missing, "corpus.txt")):
        page = Page(html)
        assert page.texts["h2"] == TITLES
        omitted = [p for p in page.texts["p"] if p.startswith("Omitted because the validation")]
        assert len(omitted) == 2
        assert all(reason in p for p in omitted)
