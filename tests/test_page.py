"""The frame of the pages, its files, and the escapes."""

import re
import unicodedata
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

import charrnn
from charrnn.drawing.page import escape_inline, preformatted, read_resource, render_page
from charrnn.formatting import standalone_jamo
from tests.conftest import ROOT
from tests.pages import HOSTILE, Page

RESOURCES = [
    path.name
    for path in (Path(charrnn.__file__).parent / "drawing").iterdir()
    if path.suffix in (".html", ".css", ".js")
]


def test_page_has_language_policy_and_escaped_title() -> None:
    page = Page(render_page(f"$css {HOSTILE}", "<p>$body</p>", "p { margin: 0; }"))
    assert page.with_tag("html", lang="en")
    assert page.with_tag("meta", charset="utf-8")
    (policy,) = page.with_tag("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    )
    assert page.texts["title"] == [f"$css {HOSTILE.translate(ESCAPES)} - charrnn"]
    assert page.texts["h1"] == [f"$css {HOSTILE.translate(ESCAPES)}"]
    assert page.texts["p"] == ["$body"]
    assert page.texts["style"][0].endswith("p { margin: 0; }")


def test_wheel_contains_the_resources() -> None:
    assert len(RESOURCES) == 6
    included = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    for name in RESOURCES:
        assert f"charrnn/drawing/{name}" in included
        # they are inserted verbatim, fetch nothing and cannot end their element
        assert (
            not re.search(r"</|https?:|url\(|@import", read_resource(name)) or name == "page.html"
        )


ESCAPES = {
    ord(c): c.encode("unicode_escape").decode() for c in "\0\x1b\u202e\u2066\ud800\r\x85\u2028"
}


def test_preformatted_text_escapes_only_what_is_invisible() -> None:
    family = "\U0001f469\u200d\U0001f467"
    kept = f"\n\ta\u3000b\u00a0c {family}\n"
    for text in (kept, f"{HOSTILE}\ud800\r\x85\u2028"):
        page = Page(preformatted(text))
        assert page.texts["pre"] == [f"\n{text.translate(ESCAPES)}"]
        assert [tag for tag, _ in page.tags] == ["pre"]
    assert "\r" not in preformatted("a\r\nb")
    assert Page(f"<p>{escape_inline(HOSTILE)}</p>").texts["p"] == [HOSTILE.translate(ESCAPES)]


def test_preformatted_bytes_are_decoded_where_they_are_utf_8() -> None:
    assert Page(preformatted("é\xff한".encode().decode("latin-1"), "byte")).texts["pre"] == [
        "\né\xff한"
    ]
    assert Page(preformatted("\xff한", "byte")).texts["pre"] == ["\n\\xff\\ud55c"]


def test_jamo_that_join_to_nothing_stand_alone() -> None:
    joined = unicodedata.normalize("NFD", "각가")
    stray = "\u1100 \u1175\u11b6\u11c2\u1112 \u1161\u1102"
    assert Page(preformatted(f"{joined} {stray}")).texts["pre"] == [f"\n{joined} ㄱ ㅣㅀㅎㅎ ㅏㄴ"]
    for code in [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]:
        assert 0x3131 <= ord(standalone_jamo(chr(code))) <= 0x3163
