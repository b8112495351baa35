"""Open the networks of bundles with the engine that suits this machine."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from naevus.bundles.bundle import builtin, find_bundles
from naevus.errors import ConfigError
from naevus.inference.abilities import Abilities
from naevus.inference.classifier import Classifier, prevalence_of
from naevus.inference.engines import instructions
from naevus.inference.engines.automatic import choose, installed, trial_networks, verify
from naevus.inference.segmenter import Segmenter
from naevus.io.parallel import thread_count
from naevus.io.settings import check_choice
from naevus.types import EngineChoice, EngineName, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from naevus.bundles.bundle import Bundle
    from naevus.types import TTA

_log = logging.getLogger(__name__)


def _log_line(line: str) -> None:
    _log.info(line)


class Networks(NamedTuple):
    """The segmenter and the classifier, if there are any."""

    segmenter: Segmenter | None
    classifier: Classifier | None


def open_networks(
    bundles: Sequence[Bundle],
    *,
    diagnose: bool = True,
    attributes: bool = True,
    prevalence: Path | Sequence[float] | None = None,
    tta: TTA = "none",
    engine: EngineName | None = None,
    threads: int | None = None,
    precision: Precision | None = None,
    streams: int = 1,
    device: str = "auto",
    choice: EngineChoice | None = None,
    report: Callable[[str], None] = _log_line,
) -> Networks:
    """Load bundles; bundles of the same task form an ensemble.

    Args:
        bundles: Bundles of one or more tasks.
        diagnose: Whether to load classifiers.
        attributes: Whether to load networks for attributes.
        prevalence: TOML file with the prevalence of each diagnosis (`naevus.evaluation.priors`), or
            what is in one, in the order of the classes.
        tta: The TTA mode.
        engine: The inference engine; None: the best one here (`engines.automatic`).
        threads: Threads of the engine; None: one per processor of this process.
        precision: Precision of the computation; None: the best one here, among those that the
            bundles recommend.
        streams: Number of chunks of a batch that OpenVINO computes in parallel.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a GPU needs ONNX Runtime.
        choice: A previous choice, as of a resumed job; engine, precision and device must
            then not be given.
        report: Called with one-line messages about trials and their result.

    Raises:
        BundleError: A graph is unusable.
        ConfigError: The bundles do not fit together, the requested setup is unknown or does not run
            here, or the prevalence is invalid.
    """
    if engine is not None:
        check_choice("engine", engine, get_args(EngineName))
    if precision is not None:
        check_choice("precision", precision, get_args(Precision))
    threads = thread_count(threads)
    if streams < 1:
        raise ConfigError(f"{streams} streams", "use 1 or more")
    segmentation, finding, classification = Abilities.of(
        bundles, diagnose=diagnose, attributes=attributes
    )
    prevalences = None if prevalence is None else _prevalences(prevalence, classification)
    used = [each for each in bundles if each in (*segmentation, *classification, *finding)]
    graphs = {
        *(each.member_path(one) for each in segmentation for one in each.segmenter.members),
        *(each.member_path(one) for each in finding for one in each.attributes.members),
        *(each.member_path(one) for each in classification for one in each.classifier.members),
    }
    chosen = choice or choose(
        used, engine=engine, precision=precision, device=device, used=graphs, report=report
    )
    instructions.hold(chosen.limit)
    how: Any = {"tta": tta, "threads": threads, "streams": streams}
    try:
        return _opened((segmentation, finding), classification, chosen, prevalences, how)
    except ConfigError as error:
        last = EngineChoice("onnxruntime", device=device)
        if choice or engine or precision or chosen.engine == last.engine or not installed(last):
            raise
        report(f"Networks run in {last}: {error}.")
        return _opened((segmentation, finding), classification, last, prevalences, how)


def find_job_bundles(
    paths: Sequence[Path | str] | None, *, attributes: bool = True
) -> list[Bundle]:
    """Read the bundles of a job.

    Args:
        paths: Bundles, ``.naevus`` files or runs; None: the built-in bundle.
        attributes: Whether attributes are segmented, if a bundle has networks for them.

    Raises:
        BundleError: A bundle is missing, damaged or has another schema, or none is built in.
        ConfigError: Attributes are to be left out, and no bundle has networks for them.
    """
    bundles = find_bundles([builtin()] if paths is None else map(Path, paths))
    if not attributes and all(each.spec.attributes is None for each in bundles):
        raise ConfigError(
            "no attributes: no bundle here has networks for them", "leave the option out"
        )
    return bundles


def _prevalences(given: Path | Sequence[float], classification: Sequence[Bundle]) -> list[float]:
    return prevalence_of(given, classification) if isinstance(given, Path) else list(given)


def _opened(
    segmenting: tuple[Sequence[Bundle], Sequence[Bundle]],
    classification: Sequence[Bundle],
    chosen: EngineChoice,
    prevalences: list[float] | None,
    how: dict[str, Any],
) -> Networks:
    # Compiling a graph uses one processor, so two graphs are compiled in parallel.
    with ThreadPoolExecutor(2, thread_name_prefix="naevus") as pool:
        how = how | {"engine": chosen.engine, "device": chosen.device}
        one, other = chosen.segmentation, chosen.classification
        segmentation, finding = segmenting
        contours = (
            pool.submit(Segmenter, segmentation, attributes=finding, precision=one, **how)
            if segmentation or finding
            else None
        )
        diagnoses = (
            pool.submit(Classifier, classification, precision=other, **how, prevalence=prevalences)
            if classification
            else None
        )
        networks = Networks(
            None if contours is None else contours.result(),
            None if diagnoses is None else diagnoses.result(),
        )
    if not chosen.tried:
        _verify(networks.segmenter)
        _verify(networks.classifier)
    return networks


def _verify(part: Segmenter | Classifier | None) -> None:
    """Check the outputs of networks that were not tried before."""
    if part is None:
        return
    evaluated = {each.path: each for bundle in part.bundles for each in trial_networks(bundle)}
    for member in part.members:
        verify(member.engine, evaluated[str(member.path)])
