"""The networks that answer together: those that outline, and those that diagnose."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from naevus.errors import ConfigError
from naevus.evaluation.prevalence import read_prevalence
from naevus.inference.classifier import Classifier
from naevus.inference.engines.openvino import precisions
from naevus.inference.segmenter import Segmenter
from naevus.taxonomy import TAXONOMIES, taxonomy_with

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from naevus.bundles.bundle import Bundle
    from naevus.bundles.spec import Task
    from naevus.images.geometry import ViewSet
    from naevus.inference.engines import EngineName, Precision


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
    engine: EngineName = "openvino",
    threads: int | None = None,
    precision: Precision | None = None,
    streams: int = 1,
) -> Networks:
    """Load bundles; those that do the same answer as one.

    Args:
        bundles: Bundles of either task, or of both.
        diagnose: Whether classifiers are loaded.
        prevalence: A file of how common the diagnoses are (`evaluation.prevalence`).
        views: The views every picture is seen in.
        engine: What runs the graphs.
        threads: Threads of the engine; None: as many as this process has processors.
        precision: What the engine computes in; None: for each task what its bundles were measured
            to bear (`bundles.figures.PrecisionChoice`), where this machine has it, else f32.
        streams: Pieces of a batch that OpenVINO computes at a time.

    Raises:
        BundleError: A graph cannot be used.
        ConfigError: The bundles do not go together, there is no such engine, or the prevalence is
            impossible or of no known diagnoses.
    """
    outlining = [each for each in bundles if each.spec.segmenter is not None]
    diagnosing = [each for each in bundles if diagnose and each.spec.classifier is not None]
    shares = None if prevalence is None else _prevalence(prevalence, diagnosing)
    how: Any = {"views": views, "engine": engine, "threads": threads, "streams": streams}
    one = precision or _measured("segmentation", outlining, engine)
    other = precision or _measured("classification", diagnosing, engine)
    # Compiling a graph takes one processor; two at a time answer sooner.
    with ThreadPoolExecutor(2, thread_name_prefix="naevus") as pool:
        outlines = pool.submit(Segmenter, outlining, precision=one, **how) if outlining else None
        diagnoses = (
            pool.submit(Classifier, diagnosing, precision=other, **how, prevalence=shares)
            if diagnosing
            else None
        )
        return Networks(
            None if outlines is None else outlines.result(),
            None if diagnoses is None else diagnoses.result(),
        )


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


def _measured(task: Task, bundles: Sequence[Bundle], engine: EngineName) -> Precision:
    """Return what all bundles were measured to bear, if the engine has it here."""
    borne = {each.spec.bears(task) for each in bundles}
    able = borne == {"bf16"} and engine == "openvino" and "bf16" in precisions()
    return "bf16" if able else "f32"


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
