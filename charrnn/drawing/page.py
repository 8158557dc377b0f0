"""The frame of an HTML page that fetches nothing, and the escaped pieces that it is filled with."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template

from charrnn.formatting import escape_control, standalone_jamo

# Conjoining jamo that form a syllable, or (the group) one that joins to nothing: a browser draws
# such jamo on top of each other.
JAMO = re.compile(
    "[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?|([\u1100-\u1112\u1161-\u1175\u11a8-\u11c2])"
)
ZERO_WIDTH_JOINERS = "\u200c\u200d"  # some scripts and emoji are written with them


def read_resource(name: str) -> str:
    """Return the text of a file that lies beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def render_page(title: str, body: str, css: str = "") -> str:
    """Return an HTML page. The title is escaped; the body and the CSS are used unchanged."""
    css = read_resource("page.css") + css
    return Template(read_resource("page.html")).substitute(
        title=escape_inline(title), css=css, body=body
    )


def escape_inline(text: object) -> str:
    """Return a text as HTML, with escapes for what would break its line or change its direction."""
    return escape(escape_control(str(text)))


def preformatted(text: str, unit: str = "char") -> str:
    """Return a text as ``<pre>``, its lines and blanks unchanged and invisible characters escaped.

    With unit ``byte`` the text has a character for each byte; it is decoded where it is UTF-8.
    """
    if unit == "byte":
        data = text.encode("latin-1", "backslashreplace")
        text = data.decode("utf-8", "backslashreplace")
    text = JAMO.sub(lambda match: standalone_jamo(match[1]) if match[1] else match[0], text)
    visible = (
        c
        if c in f"\n\t{ZERO_WIDTH_JOINERS}" or unicodedata.category(c) == "Zs"
        else escape_control(c)
        for c in text.replace("\r\n", "\n")
    )
    # a parser drops a newline right after <pre>: this one, so that the text keeps its own
    return f'<pre lang="" dir="auto">\n{escape("".join(visible))}</pre>'


def definition_list(rows: Iterable[tuple[str, object]]) -> str:
    """Return terms and their values, both HTML, as ``<dl>``."""
    items = "\n".join(f"<dt>{term}</dt><dd>{value}</dd>" for term, value in rows)
    return f"<dl>\n{items}\n</dl>"


def bullet_list(items: Sequence[str]) -> str:
    """Return items, which are HTML, as ``<ul>``; nothing if there are none."""
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""
