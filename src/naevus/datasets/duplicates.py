"""Near-duplicates: hashes propose pairs of images, image registration confirms them.

Measured by ``benchmarks/duplicate_threshold.py`` on HAM10000 (10,014 centre squares of 256 px):
registered pairs above each threshold.

==============================  ======  ==========  ==========  ==========
pairs                           number  .85         .90         .93
==============================  ======  ==========  ==========  ==========
different lesions, proposed     29,182  126, .43 %  9, .031 %   4, .014 %
different lesions, at random     5,000  0           0           0
one lesion, proposed               269  245, 91 %   237, 88 %   226, 84 %
one lesion, all                  3,206  394, 12 %   371, 12 %   325, 10 %
==============================  ======  ==========  ==========  ==========

The threshold of .93 was chosen on these pairs, so the rates are not held-out ones. The four pairs
appear to show one lesion under two ids. Three pairs from .90 to .93 were inspected; all show
different lesions, the most similar at .91. Of the pairs of one lesion 2,881 stay below .93 even if
registered (a dozen inspected: different photographs); the hashes propose 226 of the other 325.

Copies of 200 images, rotated, scaled by .6 to 1, lighter or darker, saved as JPEG of quality 50 to
95: all are confirmed, also with up to 3 % cropped at each side; with up to 6 %, 88 %; 10 %, 31 %.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np
import pandas as pd

from naevus.datasets.dataset import Finding
from naevus.images.geometry import (
    D4,
    centre_square,
    d4_transform,
    d4_transform_batch,
    resize,
    squash,
)
from naevus.io.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from numpy.typing import NDArray

    Node = TypeVar("Node", bound=Hashable)


# Perceptual hashes: 64 bits that hardly change when an image is scaled or re-encoded.

_SIDE = 32
_KEPT = slice(1, 9)  # without row and column 0, which contain the lighting gradient


def grey_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luma of an RGB image (ITU-R BT.601), H x W; a grey image is returned unchanged."""
    if pixels.ndim == 2:
        return pixels
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def d4_hashes(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the DCT hashes of the eight D4 transforms of an image, in the order of `geometry.D4`.

    The grey image is reduced to 32 x 32 and transformed by the cosine transform. Each of the 8 x 8
    coefficients of lowest frequency, without the zeroth, gives one bit: is it above the median?
    (C. Zauner: Implementation and benchmarking of perceptual image hash functions, 2010, 3.2.1).

    The spectrum of a mirrored or rotated image differs only in signs and the order of axes, so one
    transform is enough.

    Args:
        pixels: H x W x 3 or H x W.

    Returns:
        Shape (8,).
    """
    spectrum = _spectrum(grey_of(pixels))
    return np.array([_bits(_transformed(spectrum, k)) for k in D4], np.uint64)


def hamming(a: NDArray[np.uint64] | np.uint64, b: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the number of differing bits between hashes; shapes are broadcast."""
    different: NDArray[np.uint8] = np.bitwise_count(a ^ b)
    return different


def _spectrum(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = resize(grey, _SIDE, _SIDE).astype(np.float32)
    return np.asarray(cv2.dct(small)[_KEPT, _KEPT], np.float32)


def _transformed(spectrum: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    signs = np.where(np.arange(1, 9) % 2, np.float32(-1), np.float32(1))
    mirrored = spectrum * signs if k & 4 else spectrum
    for _ in range(k & 3):
        mirrored = mirrored.T * signs[:, None]  # a quarter turn: transposed and flipped vertically
    return mirrored


def _bits(spectrum: NDArray[np.float32]) -> int:
    above = (spectrum > np.median(spectrum)).ravel()
    return int.from_bytes(np.packbits(above).tobytes(), "big")


# Similarity of two images after registration.

SIDE = 64

_SCALE = 24  # of the int8 detail: +-127 is five standard deviations
_NOISE = 1.0  # grey levels: smaller variation is not texture
_LARGEST_SHIFT = SIDE / 4
_ZOOM = (0.75, 1.33)
_LEAST_OVERLAP = 0.55
_WORTH_REGISTERING = 0.5
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-3)


def detail_of(pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return the texture of an image, normalised to equal contrast everywhere.

    The centre square at 64 px, minus its local mean and divided by its local standard deviation.
    Without that, any two dark spots on plain skin correlate above .95.

    Args:
        pixels: H x W x 3 or H x W.

    Returns:
        64 x 64, signed, zero where there is no texture.
    """
    grey = squash(grey_of(centre_square(pixels)), SIDE).astype(np.float32)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.7).astype(np.float32)
    texture = grey - cv2.GaussianBlur(grey, (0, 0), 3)
    deviation = np.sqrt(cv2.GaussianBlur(texture * texture, (0, 0), 6) + _NOISE**2)
    detail = np.rint(texture / deviation * _SCALE)
    return np.asarray(np.clip(detail, -127, 127), np.int8)


def correlation(first: NDArray[np.int8], second: NDArray[np.int8]) -> float:
    """Return the correlation of two details (64 x 64) after registration, -1 to 1.

    Phase correlation gives the shift; if the images are similar then, an affine registration
    refines it. Only the overlap is compared, which must be at least 55 % of the image.

    G. D. Evangelidis, E. Z. Psarakis: Parametric image alignment using enhanced correlation
    coefficient maximization, IEEE TPAMI 30 (2008) 1858-1865.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    (across, down), _ = cv2.phaseCorrelate(a, b, _window())
    motion = np.eye(2, 3, dtype=np.float32)
    if np.hypot(across, down) <= _LARGEST_SHIFT:
        motion[:, 2] = across, down
    found = max(_overlap_correlation(a, b, motion), _overlap_correlation(a, b, np.eye(2, 3)))
    if found < _WORTH_REGISTERING:
        return found
    everywhere = np.ones((SIDE, SIDE), np.uint8)
    try:
        _, affine = cv2.findTransformECC(a, b, motion, cv2.MOTION_AFFINE, _CRITERIA, everywhere, 3)
    except cv2.error:  # did not converge
        return found
    motion = np.asarray(affine, np.float32)
    zooms = np.linalg.svd(motion[:, :2], compute_uv=False)
    if zooms.min() < _ZOOM[0] or zooms.max() > _ZOOM[1]:
        return found
    return max(found, _overlap_correlation(a, b, motion))


def _overlap_correlation(
    a: NDArray[np.float32], b: NDArray[np.float32], motion: NDArray[np.floating]
) -> float:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(b, motion, (SIDE, SIDE), flags=flags)
    inside = cv2.warpAffine(np.ones_like(b), motion, (SIDE, SIDE), flags=flags) > 0.99
    if inside.mean() < _LEAST_OVERLAP:
        return -1.0
    x, y = a[inside], np.asarray(moved)[inside]
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0


@cache
def _window() -> NDArray[np.float32]:
    return np.asarray(cv2.createHanningWindow((SIDE, SIDE), cv2.CV_32F), np.float32)


DISTANCE = 16
"""Largest number of differing bits (in some D4 transform) of a proposed pair."""

LIKENESS = 0.4
"""Smallest correlation of a proposed pair's details at 32 px; others are not registered."""

CORRELATION = 0.93
"""Smallest correlation of a confirmed pair's registered details."""

MEASURED = (
    "A near pair correlates at least .93 after registration. On HAM10000, the pairs this threshold "
    "was chosen on, it confirmed 4 of 29,182 proposed pairs of different lesions (.014 %; each "
    "seems to be one lesion under two ids) and missed 2,980 of 3,206 pairs of one lesion (93 %; a "
    "second photograph need not be a near-duplicate)."
)
"""Both error rates in words, for reports."""

_BLOCK = 256


class Appearance(NamedTuple):
    """An image's detail (64 x 64 int8) and the hashes of its eight D4 transforms."""

    detail: NDArray[np.int8]
    hashes: NDArray[np.uint64]


class Match(NamedTuple):
    """Two images by position, the D4 transform of the second that fits, and their correlation."""

    first: int
    second: int
    view: int
    correlation: float


def appearance_of(pixels: NDArray[np.uint8]) -> Appearance:
    """Return detail and hashes of an image (H x W x 3); a shorter side of 64 px is enough."""
    return Appearance(detail_of(pixels), d4_hashes(centre_square(pixels)))


def find_duplicates(
    appearances: list[Appearance],
    *,
    threshold: float = CORRELATION,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Match]:
    """Return the confirmed near-duplicates, sorted by position.

    Every hash is compared with every other (8 x N x N / 2 in blocks: seconds for 10,000 images,
    quadratic in their number).
    """
    proposed = list(propose(appearances))
    confirmed = []
    with ThreadPoolExecutor(workers) as pool:
        measured = pool.map(lambda pair: measure(appearances, pair), proposed)
        for done, match in enumerate(measured, start=1):
            if match.correlation >= threshold:
                confirmed.append(match)
            if progress is not None and (done % 100 == 0 or done == len(proposed)):
                progress(done, len(proposed))
    return confirmed


def propose(appearances: list[Appearance]) -> Iterator[Match]:
    """Yield the pairs to confirm, each once, with its best D4 transform and similarity."""
    if not appearances:
        return
    hashes = np.stack([appearance.hashes for appearance in appearances])
    small = np.stack(
        [
            resize(appearance.detail.astype(np.float32), SIDE // 2, SIDE // 2)
            for appearance in appearances
        ]
    )
    plain = _normalised(small)
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for k in D4:
        turned = _normalised(d4_transform_batch(small, k))
        for start in range(0, len(appearances), _BLOCK):
            rows = slice(start, start + _BLOCK)
            near = hamming(hashes[rows, :1], hashes[None, start:, k]) <= DISTANCE
            first, second = (positions + start for positions in np.nonzero(np.triu(near, 1)))
            likeness = np.einsum("ij,ij->i", plain[first], turned[second])
            for at in np.flatnonzero(likeness >= LIKENESS):
                pair = int(first[at]), int(second[at])
                best[pair] = max(best.get(pair, (-1.0, 0)), (float(likeness[at]), k))
    for (one, other), (likely, k) in sorted(best.items()):
        yield Match(one, other, k, likely)


def measure(appearances: list[Appearance], pair: Match) -> Match:
    """Return the pair with the correlation of its registered details."""
    turned = d4_transform(appearances[pair.second].detail, pair.view)
    return pair._replace(correlation=correlation(appearances[pair.first].detail, turned))


def components(pairs: Iterable[tuple[Node, Node]]) -> list[list[Node]]:
    """Return the connected components of pairs (union-find), in order of first appearance."""
    parent: dict[Node, Node] = {}

    def root(item: Node) -> Node:
        parent.setdefault(item, item)
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for one, other in pairs:
        parent[root(other)] = root(one)
    members: dict[Node, list[Node]] = defaultdict(list)
    for item in list(parent):
        members[root(item)].append(item)
    return list(members.values())


def _normalised(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = batch.reshape(len(batch), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (flat / np.maximum(norm, 1e-6)).astype(np.float32)
    return scaled


# Images that occur more than once: consequences for groups, splits and labels.

LARGEST_MERGE = 12
"""Groups that would join into more images than this are reported and not joined."""

COLUMNS = (
    "image_a", "image_b", "part_a", "part_b", "group_a", "group_b", "kind", "view", "correlation",
)  # fmt: skip


def copies_table(
    rows: pd.DataFrame, same: Iterable[tuple[int, int]], near: Iterable[Match]
) -> pd.DataFrame:
    """Return the duplicate pairs.

    Args:
        rows: The rows of the images in the data set's table, by position.
        same: Positions of files with the same bytes.
        near: Confirmed near-duplicates.

    Returns:
        The columns `COLUMNS`; ``kind`` is ``exact`` or ``near``, ``view`` the D4 transform of the
        second image that fits the first. Near pairs of files with the same bytes are left out.
    """
    exact = list(same)
    alike = {position: first for first, position in exact}
    pairs = [(one, other, "exact", 0, 1.0) for one, other in exact]
    for one, other, view, correlation in near:
        if alike.get(one, one) != alike.get(other, other):
            pairs.append((one, other, "near", view, round(correlation, 4)))
    columns = [rows[name].tolist() for name in ("image_id", "part", "group_id")]
    table = [
        (*(column[at] for column in columns for at in (one, other)), kind, view, correlation)
        for one, other, kind, view, correlation in pairs
    ]
    frame = pd.DataFrame(table, columns=list(COLUMNS))
    return frame[(frame["image_a"] != frame["image_b"]) | (frame["kind"] == "near")]


def merged_groups(
    copies: pd.DataFrame, rows: pd.DataFrame
) -> tuple[dict[str, str], list[list[str]], list[Finding]]:
    """Join groups that share duplicates.

    Returns:
        Image id → joined group, for images whose group grew; the image ids of the joined groups,
        largest first; and a finding for each group that would exceed `LARGEST_MERGE` images and
        is therefore not joined.
    """
    members = rows.groupby("group_id")["image_id"].agg(list).to_dict()
    across = copies[copies["group_a"] != copies["group_b"]]
    groups: dict[str, str] = {}
    merged, findings = [], []
    for names in components(zip(across["group_a"], across["group_b"], strict=True)):
        images = sorted(image_id for name in names for image_id in members[name])
        merged.append(images)
        if len(images) > LARGEST_MERGE:
            joined = counted(len(names), "group")
            detail = f"{len(images)} images of {joined}; not merged, inspect them"
            findings.append(Finding("large merged component", "error", images[0], detail))
        else:
            groups.update(dict.fromkeys(images, min(names)))
    return groups, sorted(merged, key=len, reverse=True), findings


def copy_findings(copies: pd.DataFrame, rows: pd.DataFrame) -> list[Finding]:
    """Return problems caused by duplicates: repeated files, different labels, splits or lesions."""
    known = {(row.part, row.image_id): row for row in rows.itertuples()}
    findings: list[Finding] = []
    for pair in copies.itertuples():
        one, other = known[pair.part_a, pair.image_a], known[pair.part_b, pair.image_b]
        findings.extend(_pair_findings(pair, one, other))
    return findings


def _pair_findings(pair: Any, one: Any, other: Any) -> Iterator[Finding]:
    subject = f"{pair.image_a} {pair.image_b}"
    if pair.kind == "exact":
        yield Finding("exact duplicate", "error", subject, "the files have the same bytes")
    elif pair.group_a != pair.group_b:
        tasks = "across tasks" if pair.part_a != pair.part_b else "across lesions"
        detail = f"{pair.group_a} and {pair.group_b}, correlation {pair.correlation:.3f}"
        yield Finding(f"near-duplicate {tasks}", "warning", subject, detail)
    for column, kind in (("split", "splits"), ("diagnosis", "diagnoses")):
        values = getattr(one, column), getattr(other, column)
        if pd.notna(values[0]) and pd.notna(values[1]) and values[0] != values[1]:
            detail = f"{values[0]} and {values[1]}"
            yield Finding(f"duplicate with different {kind}", "error", subject, detail)


def summary(copies: pd.DataFrame) -> dict[str, int]:
    """Count the pairs of each kind."""
    across = copies["group_a"] != copies["group_b"]
    tasks = copies["part_a"] != copies["part_b"]
    kinds = Counter(copies["kind"])
    return {
        "exact pairs": kinds["exact"],
        "near pairs of one group": int(((copies["kind"] == "near") & ~across).sum()),
        "near pairs across lesions": int(((copies["kind"] == "near") & across & ~tasks).sum()),
        "near pairs across tasks": int(((copies["kind"] == "near") & across & tasks).sum()),
    }
