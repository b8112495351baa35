"""The networks that answer together: those that outline, and those that diagnose."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from naevus.errors import ConfigError
from naevus.evaluation.priors import read_prevalence
from naevus.inference.classifier import Classifier
from naevus.inference.engines import instructions
from naevus.inference.engines.automatic import Choice, choose, installed, judged_of, verify
from naevus.inference.segmenter import Segmenter
from naevus.taxonomy import TAXONOMIES, taxonomy_with

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from naevus.bundles.bundle import Bundle
    from naevus.inference.engines import EngineName, Precision
    from naevus.types import Task, ViewSet


_log = logging.getLogger(__name__)


def _say(line: str) -> None:
    _log.info(line)


class Networks(NamedTuple):
    """What outlines lesions and what diagnoses, each where there is one."""

    segmenter: Segmenter | None
    classifier: Classifier | None


def open_networks(
    bundles: Sequence[Bundle],
    *,
    diagnose: bool = True,
    prevalence: Path | None = None,
    views: ViewSet = "none",
    engine: EngineName | None = None,
    threads: int | None = None,
    precision: Precision | None = None,
    streams: int = 1,
    choice: Choice | None = None,
    say: Callable[[str], None] = _say,
) -> Networks:
    """Load bundles; those that do the same answer as one.

    Args:
        bundles: Bundles of either task, or of both.
        diagnose: Whether classifiers are loaded.
        prevalence: A file of how common the diagnoses are (`evaluation.prevalence`).
        views: The views every picture is seen in.
        engine: What runs the graphs; None: what was tried to be best here (`engines.automatic`).
        threads: Threads of the engine; None: as many as this process has processors.
        precision: What the engine computes in; None: what was tried to be best here, among what
            the bundles were measured to bear (`bundles.figures.PrecisionChoice`).
        streams: Pieces of a batch that OpenVINO computes at a time.
        choice: How they are run where that is settled, as by a job that goes on; engine and
            precision must then be None.
        say: Told, in a line, what is tried and what came of it.

    Raises:
        BundleError: A graph cannot be used.
        ConfigError: The bundles do not go together, what is named does not run here, or the
            prevalence is impossible or of no known diagnoses.
    """
    outlining = [each for each in bundles if each.spec.segmenter is not None]
    diagnosing = [each for each in bundles if diagnose and each.spec.classifier is not None]
    shares = None if prevalence is None else _prevalence(prevalence, diagnosing)
    used = [*outlining, *(each for each in diagnosing if each.spec.segmenter is None)]
    chosen = choice or choose(used, engine=engine, precision=precision, say=say)
    instructions.hold(chosen.limit)
    how: Any = {"views": views, "threads": threads, "streams": streams}
    try:
        return _opened(outlining, diagnosing, chosen, shares, how)
    except ConfigError as error:
        last = Choice("onnxruntime")
        if choice or engine or precision or chosen.engine == last.engine or not installed(last):
            raise
        say(f"Networks run in {last}: {error}.")
        return _opened(outlining, diagnosing, last, shares, how)


def _opened(
    outlining: Sequence[Bundle],
    diagnosing: Sequence[Bundle],
    chosen: Choice,
    shares: list[float] | None,
    how: dict[str, Any],
) -> Networks:
    # Compiling a graph takes one processor; two at a time answer sooner.
    with ThreadPoolExecutor(2, thread_name_prefix="naevus") as pool:
        how = how | {"engine": chosen.engine}
        one, other = chosen.segmentation, chosen.classification
        outlines = pool.submit(Segmenter, outlining, precision=one, **how) if outlining else None
        diagnoses = (
            pool.submit(Classifier, diagnosing, precision=other, **how, prevalence=shares)
            if diagnosing
            else None
        )
        networks = Networks(
            None if outlines is None else outlines.result(),
            None if diagnoses is None else diagnoses.result(),
        )
    if not chosen.tried:
        _verify("segmentation", networks.segmenter, outlining)
        _verify("classification", networks.classifier, diagnosing)
    return networks


def _verify(task: Task, part: Segmenter | Classifier | None, bundles: Sequence[Bundle]) -> None:
    """Judge by their answers networks that were not tried before."""
    if part is None:
        return
    judged = [each for bundle in bundles for each in judged_of(bundle) if each.task == task]
    for member, network in zip(part.members, judged, strict=True):
        verify(member.engine, network)


def check_pair(segmenter: Segmenter | None, classifier: Classifier | None) -> None:
    """Refuse a pair that cannot predict.

    Raises:
        ConfigError: Both are absent, or the classifier sees crops and there is no segmenter.
    """
    if segmenter is None and classifier is None:
        raise ConfigError("there is no bundle to predict with", "name one")
    if classifier is not None and classifier.needs_mask and segmenter is None:
        raise ConfigError(
            f"{classifier.bundles[0].folder}: this classifier sees crops round the lesion",
            "name a segmentation bundle too",
        )


def _prevalence(path: Path, diagnosing: Sequence[Bundle]) -> list[float]:
    taxonomy = diagnosing[0].classifier.taxonomy if diagnosing else None
    if taxonomy is None:
        raise ConfigError(
            f"{path}: a prevalence needs a classifier of known diagnoses",
            f"name a bundle that knows those of {', '.join(TAXONOMIES)}",
        )
    shares: list[float] = read_prevalence(
        path, taxonomy_with(diagnosing[0].classifier.classes)
    ).tolist()
    return shares
