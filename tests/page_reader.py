"""A page of ours as a browser takes it, for the tests that look into one."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta"}  # what has no end tag in HTML; in SVG, such elements end in />


class Page(HTMLParser):
    """A page as a browser takes it: elements with their attributes and text, and whether tags nest."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.html = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        words: list[str] = []
        self.elements.append((tag, dict(attrs), words))
        if tag not in VOID:
            self.open.append((tag, words))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, words in self.open:
            words.append(data)

    def all(self, tag: str, css_class: str | None = None) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attrs, "".join(words))
            for name, attrs, words in self.elements
            if name == tag and (css_class is None or css_class in str(attrs.get("class", "")).split())
        ]

    @property
    def text(self) -> str:
        return self.all("body")[0][1]
