"""The parts of an HTML page, for tests: ids, references, headings, tables; and contrast."""

from __future__ import annotations

from html.parser import HTMLParser


class HtmlPage(HTMLParser):
    """Collect ids, addresses, headings, images and table headings of a page."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.columns: list[tuple[str, bool]] = []
        """Headings of columns, and whether they are of numbers."""
        self.headlines: list[str] = []
        """What cells are sorted by where that is not what they show."""
        self.images = 0
        self.title = ""
        self.first_text_of_main = ""
        self.text = ""
        """All text outside scripts, styles and figures, a line for each piece."""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"] or "")
        for name in ("src", "href", "xlink:href"):
            if name in values:
                self.addresses.append(values[name] or "")
        self.images += tag == "img"
        assert tag != "img" or "alt" in values
        if tag in {"h1", "h2", "h3"}:
            self.headings.append((tag, ""))
        if values.get("scope") == "col":
            self.columns.append(("", values.get("class") == "number"))
        if "data-key" in values:
            self.headlines.append(values["data-key"] or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside in {"h1", "h2", "h3"}:
            self.headings[-1] = (inside, self.headings[-1][1] + data)
        if not {"script", "style", "svg"} & set(self.open) and data.strip():
            self.text += data.strip() + "\n"
        if inside == "title" and "svg" not in self.open:
            self.title += data
        if inside == "th" and "thead" in self.open:
            self.columns[-1] = (self.columns[-1][0] + data, self.columns[-1][1])
        if "main" in self.open and not self.first_text_of_main:
            self.first_text_of_main = data.strip()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)


def luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours ``#rrggbb`` (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
