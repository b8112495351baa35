"""What a forge cannot show of a Markdown page, or what misleads its reader there."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FENCED = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) (.+?)\s*$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")

_SNIPPET = "a snippet or an include"
_NOT_SHOWN = {
    "a directive of Sphinx": r"^\s*(?:```|~~~|:::+)\s*\{[\w-]+\}",
    "a role of Sphinx": r"(?<!`)\{[a-z:]+\}`",
    _SNIPPET: r"--8<--|^\.\. \w+::|^!!! |\{%|\{\{|\[\[_?TOC_?\]\]|^\[TOC\]",
}
"""Syntax that only a generator of sites understands."""

_MISLEADING = {
    "a placeholder": r"\b(?:TODO|TBD|FIXME|XXX|lorem ipsum|coming soon)\b|<your[ -]|\bYOUR[_-]\w+",
    "a path of one machine": (
        r"(?<![\w.~])/(?:home|Users|root|work|tmp|build|opt|mnt)/|\b[A-Z]:\\\\?Users|file://"
    ),
    "an address that does not exist": (
        r"pip install (?:-\S+ )*[\"']?naevus\b|pypi\.org/project/naevus|naevus\.readthedocs"
        r"|github\.com/[\w-]+/naevus|git\+https?://"
    ),
}
"""Text that no reader can use, in code neither."""


def faults(text: str, page: Path, anchor_of: Callable[[str], str]) -> list[str]:
    """Return the faults of a page, one in a line.

    Args:
        text: Its Markdown.
        page: Its file, from which links lead on.
        anchor_of: Returns the anchor that a forge gives the text of a heading.
    """
    return [
        *_words(text),
        *_holes(text),
        *_cells(text),
        *_cuts(text),
        *_links(text, page, anchor_of),
    ]


def _words(text: str) -> Iterator[str]:
    whole = _COMMENT.sub("", text)
    prose = _FENCED.sub("", whole)
    for kind, pattern in (_NOT_SHOWN | _MISLEADING).items():
        shown = prose if kind == _SNIPPET else whole
        if found := re.search(pattern, shown, re.MULTILINE):
            yield f"{kind}: {found[0].strip()}"


def _holes(text: str) -> Iterator[str]:
    for block in re.findall(r"<!-- generated: ([^>]+) -->\s*<!-- end of generated -->", text):
        yield f"an empty generated block: {block}"
    for module in re.findall(r"<!-- api: (\S+) -->(?!\s*```python\n(?!```))", text):
        yield f"a module without signatures: {module}"
    shown = _COMMENT.sub("", text)
    code = [match.span() for match in _FENCED.finditer(shown)]
    headings = [
        match
        for match in _HEADING.finditer(shown)
        if not any(first <= match.start() < last for first, last in code)
    ]
    for place, heading in enumerate(headings):
        following = headings[place + 1] if place + 1 < len(headings) else None
        end = len(shown) if following is None else following.start()
        deeper = following is not None and len(following[1]) > len(heading[1])
        if not shown[heading.end() : end].strip() and not deeper:
            yield f"a heading without content: {heading[2]}"


_ROW = re.compile(r"^\|(.*)\|[ \t]*$")
_RULE = re.compile(r"^\|[\s:|-]+\|[ \t]*$")
_LABEL = re.compile(r"^\*\*([^*\n]+)\*\*:?[ \t]*\n+(?=\*\*[^*\n]+\*\*|#|\Z)", re.MULTILINE)
_CUT = re.compile(r"^(?:[*-] .*|\|.*?)?[\w`),](?:\.\.\.|…)(?=[ \t]*(?:$|\|))", re.MULTILINE)


def _cells(text: str) -> Iterator[str]:
    """Yield empty cells; those of headings, and row labels that stand for several rows, may be."""
    lines = _FENCED.sub("", _COMMENT.sub("", text)).splitlines()
    for line, following in pairwise([*lines, ""]):
        row = _ROW.match(line)
        if row is None or _RULE.match(line) or _RULE.match(following):
            continue
        cells = re.split(r"(?<!\\)\|", row[1])
        if not all(each.strip() for each in cells[1:]):
            yield f"an empty cell: {line}"


def _cuts(text: str) -> Iterator[str]:
    """Yield labels with nothing below them, and list items and cells that end in an ellipsis."""
    shown = _FENCED.sub("```", _COMMENT.sub("", text))
    for label in _LABEL.finditer(shown):
        yield f"a label without content: {label[1]}"
    for cut in _CUT.finditer(shown):
        yield f"a cut sentence: {cut[0]}"


def _links(text: str, page: Path, anchor_of: Callable[[str], str]) -> Iterator[str]:
    shown = _FENCED.sub("", _COMMENT.sub("", text))
    for link in (one or other for one, other in _LINK.findall(shown)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / unquote(name)) if name else page
        if link.startswith("/") or (name and not target.exists()):
            yield f"a link to nothing: {link}"
        elif anchor and target.suffix == ".md":
            own = text if target == page else target.read_text(encoding="utf-8")
            headings = _HEADING.finditer(_FENCED.sub("", own))
            known = {anchor_of(_plain(each[2])) for each in headings}
            if anchor not in known:
                yield f"a link to no heading: {link}"


def _plain(heading: str) -> str:
    """Return the text of a heading without links and marks."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("**", "")
