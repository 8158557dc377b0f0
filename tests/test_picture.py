"""The regions that a caption looks at: as marks, as colors, as a page over the picture."""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import charrnn
from charrnn.arrays import Array
from charrnn.drawing import picture
from charrnn.errors import TextError
from charrnn.formatting import display_width, escape_control
from charrnn.tasks.text import align
from tests.conftest import Cli
from tests.pages import HOSTILE, Page

SIZE = ("--hidden-size", "8", "--batch-size", "10", "--workers", "1", "--max-steps", "2", "-q")
N, R, D = 40, 6, 2  # rows, regions of 2 x 3, size
GRID = ("--grid", "2x3")
STARTS = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff\xe0",
    "gif": b"GIF89a",
    "webp": b"RIFF\0\0\0\0WEBPVP8 ",
}


def random_maps(m: int, rows: int, columns: int) -> Array:
    p = np.random.default_rng(0).dirichlet(np.full(rows * columns, 0.3), m)
    return p.reshape(m, rows, columns)


def tiny_png() -> bytes:
    """Return a picture of one red pixel."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\xff\0\0")),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return STARTS["png"] + b"".join(packed)


def alphas(style: str) -> Array:
    """Return how much each region is hidden by the mask in a style attribute, 0 to 1."""
    found = re.fullmatch(r"--mask:url\(data:image/png;base64,([\w+/=]+)\)", style)
    assert found
    mask = Image.open(io.BytesIO(base64.b64decode(found[1])))
    assert mask.mode == "LA"
    pixels = np.asarray(mask)
    assert (pixels[..., 0] == picture.HAZE).all()
    alpha: Array = pixels[..., 1] / 255
    return alpha


# --- in a terminal ---


@pytest.mark.parametrize(("width", "each", "times"), [(80, 7, 2), (30, 2, 2), (7, 1, 1)])
def test_every_share_has_its_mark(width: int, each: int, times: int) -> None:
    p, labels = random_maps(9, 3, 4), ["a", "space", *"bcdefgh"]
    lines = list(picture.render_maps(labels, p, 0, width))
    assert max(map(display_width, lines)) <= max(width, len("space .99"))
    groups = "\n".join(lines).split("\n\n")
    assert len(groups) == -(-9 // each)
    shown, heads = [], []
    for group in groups:
        head, *rows = group.split("\n")
        heads += re.findall(r"(\w+) (\S+)", head)
        cells = [row.split() for row in rows]
        shown += [list(of_map) for of_map in zip(*cells, strict=True)]
    assert heads == [(label, f"{q.max():.2f}"[-3:]) for label, q in zip(labels, p, strict=True)]
    for rows, q in zip(shown, p, strict=True):
        wanted = np.minimum(5 * q / q.max(), 4).astype(int)
        assert rows == ["".join(picture.MARKS[k] * times for k in row) for row in wanted]


@pytest.mark.parametrize(("depth", "levels"), [(4, [90, 37, 97]), (8, [*range(235, 256)])])
def test_a_line_of_colors_has_two_rows_of_a_map(depth: int, levels: list[int]) -> None:
    p = random_maps(2, 3, 4)
    head, *lines = picture.render_maps(["a", "b"], p, depth, 80)
    assert head.split() == ["a", f"{p[0].max():.2f}"[-3:], "b", f"{p[1].max():.2f}"[-3:]]
    n = len(levels)
    bins = np.minimum(n * p / p.max((1, 2), keepdims=True), n - 1).astype(int)
    assert len(lines) == 2
    for i, line in enumerate(lines):
        maps = [part for part in line.split("\x1b[0m") if part]
        assert maps[0].startswith("\x1b")
        for of_map, wanted in zip(maps, bins, strict=True):
            runs = re.findall("\x1b\\[([0-9;]+)m(▀+)", of_map)
            codes = [code for code, blocks in runs for _ in blocks]
            upper = [int(c.split(";")[2 if depth == 8 else 0]) for c in codes]
            assert upper == [levels[k] for k in wanted[2 * i]]
            lower = [int(c.split(";")[-1]) for c in codes]
            backgrounds = levels if depth == 8 else [k + 10 for k in levels]
            below = wanted[3 * i + 1] if not i else None
            assert lower == ([49] * 4 if below is None else [backgrounds[k] for k in below])


# --- the kinds of pictures ---


def test_a_picture_is_known_by_its_first_bytes() -> None:
    for kind, start in STARTS.items():
        data = start + bytes(range(256))
        uri = picture.picture_uri(data, "x.txt")
        assert uri == f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    others = [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"",
        b"RIFF\0\0\0\0WAVE",
        b"\xff\xd8",
        b"BM",
    ]
    for data in others:
        with pytest.raises(TextError, match=r"x\\x1b: not a PNG, JPEG, GIF or WebP picture"):
            picture.picture_uri(data, "x\x1b")


# --- the command ---


@pytest.fixture
def files(tmp_path: Path, cli: Cli) -> Path:
    """A folder with a captioner with attention over 2 x 3 regions, and what it reads."""
    rng = np.random.default_rng(0)
    np.save("regions.npy", rng.standard_normal((N, R, D)).astype(np.float32))
    words = [rng.choice(["red", "green", "<b>&", "한글"]) for _ in range(N)]
    Path("captions.txt").write_text("".join(f"{w} {i}\n" for i, w in enumerate(words)), "utf-8")
    Path("red.png").write_bytes(tiny_png())
    attentive = ("--features", "regions.npy", "--attention", *SIZE)
    cli("train", "captions.txt", *attentive, "-o", "m.npz")
    return tmp_path


SHOW = ("show", "m.npz", "--features", "regions.npy", *GRID)


def expected(row: int, target: str | None = None) -> tuple[str, Array]:
    """Return a caption, or what the model writes, and its maps."""
    model = charrnn.load("m.npz")
    model.use_features("regions.npy")
    if target is None:
        target = model.predict([""], rows=[row])[0]
    return target, align(model.predictor, "", target, row).p.reshape(-1, 2, 3)


@pytest.mark.usefixtures("files")
def test_the_terminal_shows_what_the_model_writes_or_the_line_of_the_row(cli: Cli) -> None:
    lines = Path("captions.txt").read_text("utf-8").splitlines()
    for arguments, row, target in ((("--row", "7"), 7, None), (("captions.txt",), 0, lines[0])):
        caption, p = expected(row, target)
        done = cli(*SHOW, *arguments, "--length", "30")
        head, blank, *shown = done.stdout.decode().splitlines()
        assert (head, blank) == (escape_control(caption), "")
        assert len(re.findall(r"\S \.\d\d|\S 1\.00", "\n".join(shown))) == min(len(caption) + 1, 30)
        marks = [np.minimum(5 * q[0] / q.max(), 4).astype(int) for q in p[:2]]
        first = ["".join(2 * picture.MARKS[k] for k in of_map) for of_map in marks]
        assert shown[1].split()[:2] == first
        assert b"\x1b" not in done.stdout
        message, legend = done.stderr.decode().splitlines()[-2:]
        assert message == f"charrnn: row {row} of regions.npy, attention of m.npz"
        assert legend.startswith("share, relative to the largest of the character: '·' 0")
    colored = cli(*SHOW, "captions.txt", "--color", "always").stdout
    assert "▀".encode() in colored
    assert "░".encode() not in colored


@pytest.mark.usefixtures("files")
def test_the_page_has_every_share_in_its_place(cli: Cli) -> None:
    name = "re<gions>&.npy"
    Path("regions.npy").rename(name)
    Path("hostile.txt").write_text(f"{HOSTILE}\n" * N, encoding="utf-8")
    show = ("show", "m.npz", "hostile.txt", "--features", name, *GRID, "--row", "3")
    cli(*show, "--image", "red.png", "--html", "with.html")
    cli(*show, "--html", "without.html")
    Path(name).rename("regions.npy")
    _, p = expected(3, HOSTILE)
    for file in ("with.html", "without.html"):
        text = Path(file).read_text(encoding="utf-8")
        page = Page(text)
        figures, maps = page.with_tag("figure"), page.of_class("div", "map")
        assert len(p) == len(HOSTILE) + 1 == len(figures) == len(maps) == len(page.texts["i"])
        for i, (q, figure, of_map) in enumerate(zip(p, figures, maps, strict=True)):
            wanted = picture.SHADE * (1 - q / q.max())
            np.testing.assert_allclose(alphas(of_map["style"] or ""), wanted, atol=0.0025)
            most = f"share {f'{q.max():.2f}'.removeprefix('0')} of region {q.argmax()}"
            assert (figure["title"] or "").endswith(f", {i + 1} of {len(p)}: {most}")
        (view,) = page.of_class("div", "map view")
        assert view["style"] == maps[0]["style"]
        marked = HOSTILE.replace("\0", "\\x00").replace("\x1b", "\\x1b")
        marked = marked.replace("\u202e", "\\u202e").replace("\u2066", "\\u2066")
        assert "".join(page.texts["i"]) == f"{marked}↵".replace(" ", " ")
        assert not {"\0", "\x1b", "\u202e", "\u2066"} & {*text}
        assert "<i>&lt;</i>" in text
        assert "<figcaption>&amp;</figcaption>" in text
        assert page.texts["h1"] == [f"row 3 of {name}, attention of m.npz"]
        assert len(page.with_tag("script")) == 1
        assert "--ratio: 3 / 2;" in text
    assert "--below: none" in Path("without.html").read_text()
    uri = f"data:image/png;base64,{base64.b64encode(tiny_png()).decode()}"
    assert f"--below: url({uri});" in Path("with.html").read_text()


@pytest.mark.usefixtures("files")
def test_a_question_is_shown_with_its_answer(cli: Cli) -> None:
    Path("questions.tsv").write_text("".join(f"which?\t{i}\n" for i in range(N)))
    done = cli(*SHOW, "questions.tsv", "--row", "12")
    assert done.stdout.decode().splitlines()[0] == "which?: 12"
    cli(*SHOW, "questions.tsv", "--row", "12", "--html", "page.html")
    page = Page(Path("page.html").read_text(encoding="utf-8"))
    assert "".join(page.texts["i"]) == "12↵"
    assert "which?" in page.texts["p"]


@pytest.mark.usefixtures("files")
def test_bad_input_is_refused_in_one_line(cli: Cli, monkeypatch: Any) -> None:
    cli("train", "captions.txt", "--features", "regions.npy", *SIZE, "-o", "mean.npz")
    cli("train", "captions.txt", *SIZE, "-o", "text.npz")
    np.save("other.npy", np.zeros((N, 4, D), np.float32))
    Path("vector.svg").write_text("<svg/>")
    Path("short.txt").write_text("red 1\n")
    Path("folder").mkdir()
    monkeypatch.setattr("charrnn.cli.show_picture.MAX_PICTURE_BYTES", 1000)
    Path("large.png").write_bytes(tiny_png() + bytes(1000))
    features, html = ("--features", "regions.npy"), ("--html", "page.html")
    bad: list[tuple[tuple[str, ...], int, str]] = [
        (("m.npz", "captions.txt"), 2, "the model reads features"),
        (("text.npz", *features), 2, "text.npz: reads no features"),
        (("mean.npz", *features), 2, "mean.npz: has no attention"),
        (("m.npz", *features), 2, "6 regions are not a square: give their --grid ROWSxCOLUMNS"),
        (("m.npz", *features, "--grid", "2x4"), 2, "--grid 2x4 has 8 regions, not 6"),
        (("m.npz", *features, "--grid", "6"), 2, "'6' must be ROWSxCOLUMNS"),
        (("m.npz", *features, "--grid", "0x6"), 2, "'0x6' must be ROWSxCOLUMNS"),
        (("m.npz", *features, *GRID, "--row", "40"), 2, "--row 40: regions.npy has 40 rows"),
        (("m.npz", *features, *GRID, "--row", "-1"), 2, "-1"),
        (("m.npz", "--features", "other.npy", *GRID), 3, "the model reads 6 regions of 2 numbers"),
        (("m.npz", "--features", "red.png", *GRID), 3, "red.png: not an array of numbers"),
        (("m.npz", "--features", "none.npy", *GRID), 3, "none.npy: no such file"),
        (("m.npz", "short.txt", *features, *GRID), 3, "short.txt"),
        (("m.npz", "none.txt", *features, *GRID), 3, "none.txt"),
        (("m.npz", "captions.txt", "short.txt", *features), 2, "give one FILE, not 2"),
        (("m.npz", "captions.txt", "--row", "1"), 2, "--row, --image and --grid need --features"),
        (("m.npz", *GRID), 2, "missing text file"),
        (("m.npz", *features, *GRID, "--image", "red.png"), 2, "--image needs --html"),
        *(
            (("m.npz", *features, *option), 2, "need a language model")
            for option in (("--neuron", "0:1"), ("--probe", "depth"), ("--gates",), ("--mix",))
        ),
        *(
            (("m.npz", *features, *GRID, "--image", file, *html), 3, message)
            for file, message in (
                ("vector.svg", "vector.svg: not a PNG, JPEG, GIF or WebP picture"),
                ("large.png", "large.png: a picture of more than 1,000 bytes"),
                ("none.png", "none.png: no such file"),
                ("folder", "folder: not a regular file"),
            )
        ),
        (("m.npz", *features, *GRID, "--image", "red.png", "--html", "red.png"), 2, "red.png"),
    ]
    for arguments, code, message in bad:
        done = cli("show", *arguments, rc=code)
        *_, last = done.stderr.decode().splitlines()
        assert message in last, (arguments, done.stderr.decode())
        assert not done.stdout
        assert b"Traceback" not in done.stderr
    assert not Path("page.html").exists()


@pytest.mark.usefixtures("files")
def test_attention_that_is_not_finite_ends_the_command(cli: Cli) -> None:
    model = charrnn.load("m.npz")
    model.network.params["Wa"][:] = 3e38
    model.save("huge.npz")
    done = cli("show", "huge.npz", "captions.txt", *SHOW[2:], rc=6)
    assert b"the attention is not finite" in done.stderr.splitlines()[-1]


def test_the_legend_goes_from_dark_to_bright() -> None:
    found = re.findall("\x1b\\[38;5;(\\d+)m█", picture.render_legend(8))
    assert [*map(int, found)] == [*range(235, 256)]
    assert re.findall("\x1b\\[(\\d+)m█", picture.render_legend(4)) == ["90", "37", "97"]
