"""The pages in a browser: phone and screen width, light and dark, pointer and keyboard."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import charrnn
from charrnn.config import CELLS
from charrnn.drawing import picture, player
from charrnn.formatting import escape_control, standalone_jamo
from charrnn.model import Model
from charrnn.network import Stepper
from tests.conftest import Cli, assert_close
from tests.pages import HOSTILE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = shlex.split(
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --enable-logging=stderr --v=0 "
    "--window-size=1300,900 --dump-dom"
)
WIDTHS = (390, 1200)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

FRAME = """<!DOCTYPE html><pre id="results"></pre>
<script>
const results = [];
addEventListener("message", e => {
  results.push(e.data);
  document.getElementById("results").textContent = JSON.stringify(results);
});
</script>
"""


def script(name: str) -> str:
    return f"<script>{(Path(__file__).parent / name).read_text(encoding='utf-8')}</script>"


def add_probe(html: str, probe: str) -> str:
    """Return a page that collects its errors, and runs a script after its own."""
    html = html.replace("<head>", f"<head>{script('page_errors.js')}", 1)
    return html.replace("</body>", f"{probe}</body>")


def measure(page: Path, *, dark: bool) -> list[dict[str, Any]]:
    """Return the measurements that a page makes in frames of both widths."""
    folder = page.parent / f"{page.stem}-{dark}"
    folder.mkdir()
    html = add_probe(page.read_text(encoding="utf-8"), script("page_probe.js"))
    (folder / "page.html").write_text(html, encoding="utf-8")
    results = run_frames(folder, [("page.html", width) for width in WIDTHS], dark=dark)
    return sorted(results, key=lambda result: result["width"])


def run_frames(
    folder: Path, frames: Sequence[tuple[str, int]], *, dark: bool = False, budget_ms: int = 5000
) -> list[dict[str, Any]]:
    """Return what pages in frames of some widths report, given the names of the pages."""
    assert CHROMIUM
    elements = (
        f'<iframe src="{name}" style="position:absolute;width:{width}px;height:800px"></iframe>'
        for name, width in frames
    )
    (folder / "frame.html").write_text(FRAME + "".join(elements))
    budget = f"--virtual-time-budget={budget_ms}"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    profile, url = f"--user-data-dir={folder / 'user'}", (folder / "frame.html").as_uri()
    done = subprocess.run(
        [CHROMIUM, *FLAGS, budget, scheme, profile, url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    results = re.search(r'<pre id="results">(\[.*?\])</pre>', done.stdout, re.S)
    assert results, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, done.stderr
    reported: list[dict[str, Any]] = json.loads(unescape(results[1]))
    return reported


@pytest.fixture
def pages(cli: Cli, tmp_path: Path) -> dict[str, Path]:
    """The pages of a model of a hostile text in two scripts."""
    rng = np.random.default_rng(0)
    words = ["바다는", "the", "이야기를", "king", HOSTILE]
    text = "".join(" ".join(rng.choice(words, 5)) + "\n" for _ in range(250))
    name = "</title><b>&이야기.txt".replace("/", "")
    (tmp_path / name).write_text(text, encoding="utf-8")
    size = ("--hidden-size", "8", "--max-steps", "120", "--seq-length", "16", "--batch-size", "8")
    cli("train", name, *size, "-q", "-o", "run.npz")
    cli("report", "run.npz")
    cli("show", "run.npz", name, "--html", "show.html", "--length", "1500")
    return {"report": tmp_path / "run.html", "show": tmp_path / "show.html"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_are_readable_and_usable_at_every_width(pages: dict[str, Path], dark: bool) -> None:
    for name, page in pages.items():
        results = measure(page, dark=dark)
        assert tuple(result["width"] for result in results) == WIDTHS
        scripts = page.read_text(encoding="utf-8").count("<script") + 2
        for result in results:
            assert not result["scroll"], result["beyond"]
            assert not result["beyond"]
            assert not result["overlaps"]
            assert result["contrast"][0] >= 4.5, result["contrast"]
            assert result["dark"] == dark
            assert result["lines"]
            assert not result["errors"]
            assert not result["wrongValues"]
            assert result["points"] == (20 if name == "report" else 0)
            assert result["characters"] >= 900
            assert not result["silent"]
            assert result["hacked"] == "undefined"
            assert result["scripts"] == scripts
            right, down, up, left = result["moves"]
            assert {move["count"] for move in result["moves"]} == {1}
            assert (right["index"], left["index"]) == (1, up["index"] - 1)
            assert up["y"] == pytest.approx(right["y"], abs=5)
            assert down["y"] > right["y"] + 15
            assert max(abs(down["x"] - right["x"]), abs(up["x"] - right["x"])) < 20


# --- a page that runs a model ---

LENGTH = 40
PRIME = "the é한"
PLAYS = [("", 0, 1), (PRIME, 0, 1), ("", 1, 5), ("", 1, 5), ("", 1, 6)]  # prime, temp, seed
KOREAN = "바다는 the 이야기를 ㅋㅋ king 닭.\n" * 40


def exported_models(folder: Path, text: str) -> dict[str, Model]:
    """Return models by name, with weights that are exact in float16, and large."""
    rng, hostile = np.random.default_rng(0), f"{KOREAN}{text}{HOSTILE}\n"
    options: dict[str, dict[str, Any]] = {
        f"{cell}-{num_layers}": {"cell": cell, "num_layers": num_layers}
        for cell in CELLS
        for num_layers in (1, 2, 3)
    }
    options["lines"] = {"documents": "line", "min_count": 2}
    options["files"] = {"documents": "file"}
    options |= {unit: {"unit": unit} for unit in ("char", "byte", "jamo")}
    models = {}
    for name, option in options.items():
        corpus = [text] if "-" in name else [hostile] * 2
        model = charrnn.train(corpus, hidden_size=9, max_steps=1, dtype="float64", **option)
        model.network.params.vector[:] *= rng.uniform(1, 3, len(model.network.params.vector))
        model.save(folder / f"{name}.npz", half=True)
        models[name] = charrnn.load(folder / f"{name}.npz")
    return models


def logits_of_every_id(model: Model) -> np.ndarray[Any, Any]:
    """Return the logits after each id of the vocabulary, read in order, (V, V)."""
    step = Stepper(model.network, model.network.zero_state(1))
    return np.array([step(np.array([i]))[:, 0].copy() for i in range(len(model.vocabulary))])


def shown_text(model: Model, prime: str) -> str:
    """Return the text of temperature 0 as a page shows it."""
    text = "".join(model.sample(4 * LENGTH, temp=0, prime=prime, unknown="skip"))
    if model.unit == "byte":
        text = text.encode("latin-1").decode("utf-8", "replace")
    text = re.sub("[\u1100-\u11ff]", lambda jamo: standalone_jamo(jamo[0]), text)
    return "".join(c if c in "\n\t" else escape_control(c) for c in text)


def test_page_runs_every_cell_and_unit_as_numpy_does(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "LENGTH", LENGTH)
    models, probe = exported_models(tmp_path, text), script("player_probe.js")
    halves = np.arange(0, 2**16, 31).astype("<u2").view("<f2")
    halves = halves[np.isfinite(halves)]
    data = base64.b64encode(halves.tobytes()).decode()
    probe = f"<script>const PLAYS = {json.dumps(PLAYS)}, HALVES = '{data}';</script>{probe}"
    for name, model in models.items():
        html = add_probe(player.render_player(model, f"{name} {HOSTILE}"), probe)
        (tmp_path / f"{name}.html").write_text(html, encoding="utf-8")
    frames = [(f"{name}.html", WIDTHS[i % 2]) for i, name in enumerate(models)]
    results = run_frames(tmp_path, frames, budget_ms=10_000)
    by_name = {result["title"].split()[0]: result for result in results}
    assert by_name.keys() == models.keys()
    for name, model in models.items():
        result = by_name[name]
        assert_close(np.array(result["logits"]), logits_of_every_id(model), 1e-9)
        assert (result["errors"], result["hacked"], result["scripts"]) == ([], "undefined", 5)
        assert not result["beyond"]
        assert result["halves"] == halves.tolist()
        zero, primed, first, again, other = result["texts"]
        for play, prime in ((zero, ""), (primed, PRIME)):
            expected = shown_text(model, prime)
            assert expected.startswith(play["text"])
            assert len(play["bits"]) >= LENGTH or play["text"] == expected
        assert primed["prime"] == PRIME
        assert first == again
        assert first["text"] != other["text"]
        assert LENGTH <= len(first["bits"]) < result["continued"] - LENGTH + 2
        for bits, names in zip(first["bits"], first["classes"], strict=True):
            assert int(names[1]) in (min(9, int(max(0, bits + d))) for d in (-0.005, 0.005))
        if "-" in name:  # of a cell; the others skip, escape or compose characters
            assert primed["status"].endswith("; unknown characters skipped in the prime: 2")
            nll = model.nll(first["text"]) / np.log(2)
            np.testing.assert_allclose(first["bits"], nll, atol=0.006)
            assert first["status"] == f"{LENGTH} characters, {nll.mean():.2f} bits per character"


# --- a page of what a caption looks at ---

PICTURE_PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const root = document.querySelector(".picture"), text = root.querySelector("pre");
  const panel = root.querySelector("output"), view = root.querySelector(".view");
  const indexOf = e => [...e.parentElement.children].indexOf(e);
  const seen = () => ({
    mask: view.style.getPropertyValue("--mask"), panel: panel.textContent,
    current: [...root.querySelectorAll(".current")].map(indexOf),
  });
  const send = (target, event) => { target.dispatchEvent(event); return seen(); };
  const key = name => send(text, new KeyboardEvent("keydown", {key: name}));
  const characters = text.querySelectorAll("i"), figures = root.querySelectorAll("figure");
  const keys = ["ArrowLeft", "ArrowRight", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home"];
  const beyond = [...document.querySelectorAll("body *")].filter(
    e => e.getBoundingClientRect().right > document.documentElement.clientWidth + .5);
  const box = view.getBoundingClientRect();
  parent.postMessage({
    width: innerWidth, errors, beyond: beyond.map(e => e.outerHTML), first: seen(),
    keys: keys.map(key), ratio: box.width / box.height,
    hover: send(characters[2], new MouseEvent("mouseover", {bubbles: true})),
    click: send(figures[1].firstElementChild, new MouseEvent("click", {bubbles: true})),
    sharp: getComputedStyle(figures[0].firstElementChild).imageRendering,
    masks: [...figures].map(e => e.firstElementChild.style.getPropertyValue("--mask")),
    titles: [...figures].map(e => e.title),
  }, "*");
}, 300));
</script>"""


def test_the_map_of_a_character_is_shown_by_pointer_and_keys(tmp_path: Path) -> None:
    p = np.random.default_rng(0).dirichlet(np.full(6, 0.3), 4).reshape(4, 2, 3)
    body = [picture.render_picture("", [*"a b", "↵"], ["a", "space", "b", "end"], p)]
    image = io.BytesIO()
    Image.new("RGB", (40, 10), "red").save(image, "png")
    pictures = {
        "picture": (picture.picture_uri(image.getvalue(), ""), 4, "pixelated", "a, 1 of 4: "),
        "broken": (picture.picture_uri(image.getvalue()[:20], ""), 1.5, "auto", "The browser"),
        "alone": ("", 1.5, "auto", "a, 1 of 4: "),
    }
    for name, (below, *_) in pictures.items():
        html = add_probe(picture.render_pictures(name, body, (2, 3), below), PICTURE_PROBE)
        (tmp_path / f"{name}.html").write_text(html, encoding="utf-8")
    for name, (_, ratio, sharp, shown) in pictures.items():
        results = run_frames(tmp_path, [(f"{name}.html", width) for width in WIDTHS])
        assert sorted(result["width"] for result in results) == list(WIDTHS)
        for result in results:
            assert (result["errors"], result["beyond"]) == ([], [])
            assert len(set(result["masks"])) == 4
            assert result["ratio"] == pytest.approx(ratio, rel=0.02)
            assert result["sharp"] == sharp
            assert result["first"]["panel"].startswith(shown)
            steps = [*result["keys"], result["hover"], result["click"]]
            for step, i in zip(steps, [0, 1, 2, 3, 3, 2, 0, 2, 1], strict=True):
                assert step["mask"] == result["masks"][i]
                assert step["current"] == [i, i]
                if step is not result["keys"][0]:
                    assert step["panel"] == result["titles"][i]
