"""Check every link of the built pages and of the repository's own Markdown; fetch nothing.

Sphinx checks the links in Markdown; this checks the finished pages, with generated parts, raw
HTML and images. No page may load anything from the network. Links to other sites are not checked.
"""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from sphinx.util import logging

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sphinx.application import Sphinx

_REPOSITORY = ("README.md", "results/README.md")
_LINKS = {"a": "href", "link": "href", "object": "data"}
"""The attribute that holds an element's link, where it is not ``src``."""

_HEADING = re.compile("h[1-6]")

log = logging.getLogger(__name__)


class Link(NamedTuple):
    """The target of a link, and whether the page loads it."""

    target: str
    loaded: bool


class Parsed(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: set[Link] = set()
        self.anchors: set[str] = set()
        self.headings: list[str] = []
        self._in_heading = False
        self.feed(html)

    def handle_data(self, data: str) -> None:
        """Note the text of a heading."""
        if self._in_heading:
            self.headings[-1] += data

    def handle_endtag(self, tag: str) -> None:
        """Note the end of a heading."""
        self._in_heading = self._in_heading and not _HEADING.fullmatch(tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's link and its anchor, and the beginning of a heading."""
        if _HEADING.fullmatch(tag):
            self._in_heading = True
            self.headings.append("")
        values = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := values.get(name)))
        target = values.get(_LINKS.get(tag, "src"))
        if target is not None:
            self.links.add(Link(target, tag != "a"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the check with Sphinx."""
    app.connect("build-finished", _check, priority=900)  # others copy files at the end, too
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def anchor_of(heading: str) -> str:
    """Return the anchor that a forge gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _check(app: Sphinx, failure: Exception | None) -> None:
    if failure is not None:
        return
    site, root = Path(app.outdir).resolve(), Path(app.srcdir).resolve().parent
    pages = {path: Parsed(path.read_text()) for path in site.rglob("*.html")}
    render = MarkdownIt().render
    texts = {root / name: Parsed(render((root / name).read_text())) for name in _REPOSITORY}
    for text in texts.values():
        text.anchors |= {anchor_of(heading) for heading in text.headings}
    for problem in (*broken(pages, site), *broken(texts, root)):
        log.warning(problem)


def broken(pages: Mapping[Path, Parsed], root: Path) -> Iterator[str]:
    """Yield one line for each broken link of pages below ``root``."""
    for path, page in pages.items():
        for link in sorted(page.links):
            problem = _problem(link, path, pages, root)
            if problem:
                yield f"{path.relative_to(root)}: {link.target} {problem}"


def _problem(link: Link, path: Path, pages: Mapping[Path, Parsed], root: Path) -> str | None:
    parts = urlsplit(link.target)
    if parts.scheme or parts.netloc:
        away = parts.scheme in {"", "http", "https"}
        return "would be fetched from the network" if away and link.loaded else None
    file = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
    if not file.is_relative_to(root):
        return "leads out of the site"
    known = pages.get(file)
    if known is None:
        return None if file.exists() else "is not there"
    if parts.fragment and unquote(parts.fragment) not in known.anchors:
        return "has no such anchor"
    return None
