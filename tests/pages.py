"""A strict parser of the HTML pages, for their tests."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = "</script></pre><script>hacked = 1</script><b>&amp; &lt;\"'\0\x1b[2J\u202e\u2066<!--"
ESCAPES = {
    ord(c): c.encode("unicode_escape").decode() for c in "\0\x1b\u202e\u2066\ud800\r\x85\u2028"
}
Attributes = dict[str, str | None]


class Page(HTMLParser):
    """The content of a page. Every tag must be closed, in order, and nothing may be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, Attributes]] = []
        self.tags: list[tuple[str, Attributes]] = []
        self.texts: dict[str, list[str]] = {}  # by tag
        self.characters: list[tuple[str, str]] = []  # text and class of each <i> in a <pre>
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert not {"src", "href", "srcset", "data", "action", "onclick"} & dict(attrs).keys()
        if tag not in ("meta", "br", "input"):
            self.open.append((tag, dict(attrs)))
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        open_tags = [tag for tag, _ in self.open]
        for tag in set(open_tags):
            self.texts[tag][-1] += data
        if open_tags[-2:] == ["pre", "i"]:
            self.characters.append((data, self.open[-1][1].get("class") or ""))

    def with_tag(self, tag: str, **wanted: str) -> list[Attributes]:
        """Return the attributes of all elements of a kind that have the wanted ones."""
        return [a for t, a in self.tags if t == tag and wanted.items() <= a.items()]

    def of_class(self, tag: str, name: str) -> list[Attributes]:
        return self.with_tag(tag, **{"class": name})
