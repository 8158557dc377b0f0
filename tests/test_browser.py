"""The pages in a browser, at the width of a phone and of a screen, light and dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Cli

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
    *("--virtual-time-budget=5000", "--window-size=1300,900", "--dump-dom"),
)
WIDTHS = 390, 1200
HOSTILE = "</script></pre><script>hacked = 1</script><b>&amp;\"'\0\u202e\u2066<!--"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: the pages are not tried")

# Before all else in the page: what goes wrong is kept.
FIRST = """<script>
var wrong = [];
addEventListener("error", e => wrong.push(String(e.message)));
addEventListener("securitypolicyviolation", e => wrong.push("fetches " + e.blockedURI));
console.error = console.warn = (...words) => wrong.push(words.join(" "));
</script>"""
# After all else: the page is measured and tried, and tells the frame around it.
LAST = """<script>
addEventListener("load", () => {
  const all = [...document.querySelectorAll("body *")].filter(e => !/^(SCRIPT|STYLE|TITLE)$/i.test(e.tagName));
  const rgb = colour => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = colour => rgb(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor, [, , , alpha = 1] = rgb(colour);
      if (alpha === 1) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? "rgb(18, 18, 18)" : "rgb(255, 255, 255)";
  };
  const contrasts = [];
  for (const e of all) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const ink = getComputedStyle(e)[e.namespaceURI.endsWith("svg") ? "fill" : "color"];
    const [a, b] = [light(ink), light(behind(e))].sort((a, b) => b - a);
    contrasts.push([(a + .05) / (b + .05), e.outerHTML.slice(0, 80)]);
  }
  const boxes = [...document.querySelectorAll("svg text, .legend li, h2, output")].map(e => e.getBoundingClientRect());
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
  const unlike = [];
  for (const point of document.querySelectorAll(".point")) {
    const values = document.getElementById("values"), told = point.getAttribute("aria-label");
    values.textContent = "";
    point.firstElementChild.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    if (values.textContent !== told) unlike.push("hover: " + told);
    values.textContent = "";
    point.dispatchEvent(new FocusEvent("focusin", {bubbles: true}));
    if (values.textContent !== told) unlike.push("focus: " + told);
    if (point.tabIndex !== 0) unlike.push("tab: " + told);
  }
  let silent = 0;
  const map = document.querySelector(".shades pre");
  const letters = map ? [...map.querySelectorAll("i")] : [];
  for (const letter of letters) {
    const panel = map.parentElement.querySelector("output");
    panel.textContent = "";
    letter.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    silent += !/\\d bits/.test(panel.textContent);
  }
  parent.postMessage({
    width: innerWidth,
    scroll: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    beyond: all.map(e => [e.getBoundingClientRect(), e.outerHTML.slice(0, 80)])
      .filter(([r]) => r.left < -.5 || r.right > document.documentElement.clientWidth + .5).map(([, html]) => html),
    overlaps: boxes.some((a, i) => boxes.some((b, j) => i < j && !apart(a, b))),
    contrast: contrasts.reduce((a, b) => a[0] < b[0] ? a : b),
    dark: light(behind(document.body)) < .1,
    // what is drawn has the lines that the text has
    lines: [...document.querySelectorAll("pre")].every(e => e.innerText === e.textContent),
    points: document.querySelectorAll(".point").length,
    letters: letters.length, silent, unlike, wrong, hacked: typeof hacked, scripts: document.scripts.length,
  }, "*");
});
</script>"""
FRAME = """<!DOCTYPE html><pre id="told"></pre>
<script>
const told = [];
addEventListener("message", e => {
  told.push(e.data);
  document.getElementById("told").textContent = JSON.stringify(told);
});
</script>
"""


def visit(page: Path, *, dark: bool) -> list[dict[str, Any]]:
    """Return what a page tells of itself in frames of both widths; the browser's own messages are no worse."""
    assert CHROMIUM
    folder = page.parent / f"{page.stem}-{dark}"
    folder.mkdir()
    text = page.read_text(encoding="utf-8")
    (folder / "page.html").write_text(
        text.replace("<head>", f"<head>{FIRST}", 1).replace("</body>", f"{LAST}</body>"), encoding="utf-8"
    )
    frames = "".join(f'<iframe src="page.html" style="width:{w}px;height:800px;border:0"></iframe>' for w in WIDTHS)
    (folder / "frame.html").write_text(FRAME + frames)
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, scheme, f"--user-data-dir={folder / 'user'}", (folder / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = re.search(r'<pre id="told">(\[.*?\])</pre>', done.stdout, re.S)
    assert told, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, done.stderr
    return sorted(json.loads(unescape(told[1])), key=lambda row: row["width"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def pages(cli: Cli, tmp_path: Path) -> dict[str, Path]:
    """The pages of a model of a text that is hostile, in two scripts."""
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
def test_pages(pages: dict[str, Path], dark: bool) -> None:
    for name, page in pages.items():
        phone, screen = visit(page, dark=dark)
        assert (phone["width"], screen["width"]) == WIDTHS
        scripts = page.read_text(encoding="utf-8").count("<script") + 2
        for told in (phone, screen):
            assert not told["scroll"], told["beyond"]
            assert not told["beyond"]
            assert not told["overlaps"]
            assert told["contrast"][0] >= 4.5, told["contrast"]
            assert told["dark"] == dark
            assert told["lines"]
            assert not told["wrong"]
            assert not told["unlike"]
            assert not told["silent"]
            assert told["hacked"] == "undefined"
            assert told["scripts"] == scripts
            assert told["points"] == (20 if name == "report" else 0)
            assert told["letters"] >= 900
