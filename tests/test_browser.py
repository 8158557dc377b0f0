"""The pages in a browser: phone and screen width, light and dark, pointer and keyboard."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Cli
from tests.pages import HOSTILE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = shlex.split(
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --enable-logging=stderr --v=0 "
    "--virtual-time-budget=5000 --window-size=1300,900 --dump-dom"
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


def measure(page: Path, *, dark: bool) -> list[dict[str, Any]]:
    """Return the measurements that a page makes in frames of both widths."""
    assert CHROMIUM
    folder = page.parent / f"{page.stem}-{dark}"
    folder.mkdir()
    html = page.read_text(encoding="utf-8")
    html = html.replace("<head>", f"<head>{script('page_errors.js')}", 1)
    html = html.replace("</body>", f"{script('page_probe.js')}</body>")
    (folder / "page.html").write_text(html, encoding="utf-8")
    frames = (
        f'<iframe src="page.html" style="width:{width}px;height:800px;border:0"></iframe>'
        for width in WIDTHS
    )
    (folder / "frame.html").write_text(FRAME + "".join(frames))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    profile, url = f"--user-data-dir={folder / 'user'}", (folder / "frame.html").as_uri()
    done = subprocess.run(
        [CHROMIUM, *FLAGS, scheme, profile, url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    results = re.search(r'<pre id="results">(\[.*?\])</pre>', done.stdout, re.S)
    assert results, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, done.stderr
    return sorted(json.loads(unescape(results[1])), key=lambda result: result["width"])


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
