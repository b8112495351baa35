"""From Python: pictures in, predictions out."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from naevus.bundles.bundle import builtin, find_bundles
from naevus.errors import PictureError
from naevus.images.read import Limits
from naevus.inference.inputs import find_pictures
from naevus.inference.networks import check_pair, open_networks
from naevus.inference.plan import Plan
from naevus.inference.prediction import Prediction, Refused
from naevus.inference.stages import Given, Job
from naevus.inference.stream import BATCH, Workers
from naevus.io.parallel import cpu_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from naevus.images.geometry import ViewSet
    from naevus.inference.classifier import Classifier
    from naevus.inference.engines import EngineName, Precision
    from naevus.inference.segmenter import Segmenter

    AnyPicture = Path | str | NDArray[np.uint8]

_LIMITS = Limits()


class Predictor:
    """Outlines and diagnoses pictures; `naevus.load` makes one.

    The networks are loaded once, so keep it for all your pictures. Use it from one thread; it
    has threads of its own that read and cut pictures meanwhile.

    Args:
        segmenter: Makes the masks; None where the classifier sees whole pictures.
        classifier: Gives the diagnoses; None for masks alone.
        threads: Threads that read pictures; None: as many as processors.
        limits: Which pictures are refused before decoding.

    Raises:
        ConfigError: Both are absent, or the classifier sees crops and there is no segmenter.

    Examples:
        >>> predictor = load("bundle")
        >>> prediction = predictor("lesion.jpg")
        >>> prediction.mask.shape == (prediction.height, prediction.width)
        True
        >>> list(prediction.probabilities)
        ['MEL', 'NV', 'BCC', 'AKIEC', 'BKL', 'DF', 'VASC']
        >>> max(prediction.probabilities, key=prediction.probabilities.get) == prediction.diagnosis
        True
        >>> prediction.heatmap.shape == prediction.mask.shape
        True

        Pixels do as well as files, and several of either as one:

        >>> pixels = np.full((120, 160, 3), 200, np.uint8)
        >>> pixels[30:90, 50:110] = (90, 50, 40)
        >>> dark, again = predictor([pixels, "lesion.jpg"])
        >>> dark.box
        Box(left=50, top=30, right=110, bottom=90)
        >>> dark.flags
        {}
        >>> again.to_dict() == prediction.to_dict()
        True

        Many are best had one by one, in constant memory:

        >>> for prediction in predictor.stream(["lesion.jpg", "absent.jpg"], errors="yield"):
        ...     if isinstance(prediction, Refused):
        ...         print(prediction.problem)
        ...     else:
        ...         print(prediction.image_id, prediction.crop_mode)
        lesion crop
        is not there; check the name and the folder
    """

    def __init__(
        self,
        segmenter: Segmenter | None,
        classifier: Classifier | None,
        *,
        threads: int | None = None,
        limits: Limits = _LIMITS,
    ) -> None:
        check_pair(segmenter, classifier)
        forms = () if classifier is None else classifier.forms
        self._job = Job(Plan(segmenter, classifier, forms), limits)
        self._threads = threads or cpu_count()

    @overload
    def __call__(self, pictures: AnyPicture) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, pictures: Sequence[AnyPicture]) -> list[Prediction]: ...

    def __call__(
        self, pictures: AnyPicture | Sequence[AnyPicture]
    ) -> Prediction | list[Prediction]:
        """Predict a picture, or several.

        Args:
            pictures: A file, or pixels H x W x 3 (uint8, RGB); or a list of those.

        Returns:
            A prediction, or a list of them in the same order.

        Raises:
            PictureError: A file cannot be read; nothing is returned of the others. Use `stream`
                where that may be.
            DataError: Pixels are of another shape or type.
        """
        if isinstance(pictures, Path | str | np.ndarray):
            return next(self.stream([pictures]))
        return list(self.stream(pictures))

    @overload
    def stream(
        self, pictures: str | Path | Iterable[AnyPicture], *, errors: Literal["raise"] = "raise"
    ) -> Iterator[Prediction]: ...

    @overload
    def stream(
        self, pictures: str | Path | Iterable[AnyPicture], *, errors: Literal["yield"]
    ) -> Iterator[Prediction | Refused]: ...

    def stream(
        self,
        pictures: str | Path | Iterable[AnyPicture],
        *,
        errors: Literal["raise", "yield"] = "raise",
    ) -> Iterator[Prediction | Refused]:
        """Predict pictures one after the other, as they come, in constant memory.

        The stages are those of ``naevus predict``: while the networks see one batch of 32, the
        next is read. Some batches are therefore taken from ``pictures`` before the first
        prediction is there.

        Args:
            pictures: Files or pixels, in any number and order; or a folder, for all pictures below
                it, by id. Pixels must stay as they are until their prediction is there.
            errors: What is done about a file that cannot be read. ``raise``: the stream ends with
                its error. ``yield``: a `Refused` with its id, path and problem stands in its place.

        Yields:
            What is said of each picture, in the order given.

        Raises:
            PictureError: A file cannot be read, and errors are raised.
            DataError: Pixels are of another shape or type, or the folder has no pictures.
        """
        if isinstance(pictures, str | Path):
            pictures = [source.path for source in find_pictures([Path(pictures)]).sources]
        with Workers(self._threads) as workers:
            for piece in self._job.predict(_pieces(pictures), workers):
                for said in piece:
                    if isinstance(said, Refused) and errors == "raise":
                        raise PictureError(Path(said.path), said.problem)
                    yield said


def load(
    bundle: Path | str | Sequence[Path | str] | None = None,
    *,
    views: ViewSet = "none",
    engine: EngineName = "openvino",
    precision: Precision | None = None,
    threads: int | None = None,
    streams: int = 1,
    prevalence: Path | str | None = None,
) -> Predictor:
    """Load a bundle, to predict with from Python.

    Args:
        bundle: A bundle's folder or ``.naevus`` file, or a run for the bundles of all its folds;
            or a list of those, for both tasks or to be averaged. None: the built-in one.
        views: The views every picture is seen in: ``none``, ``flips`` (4) or ``dihedral`` (8).
        engine: What runs the networks: ``openvino`` or ``onnxruntime``.
        precision: What they compute in: ``f32``, or ``bf16`` where the processor has it. None: bf16
            where that is so and the bundle was measured to lose next to nothing by it.
        threads: How many are used; None: as many as this process has processors.
        streams: Pieces of a batch that are computed at a time. 1 answers soonest; for thousands of
            pictures as many as threads are faster.
        prevalence: A TOML file of how common the diagnoses are where the pictures come from
            (``MEL = 0.05``, one line for each); natural probabilities are re-weighed to it.

    Returns:
        A predictor.

    Raises:
        BundleError: A bundle is absent, damaged or of another schema, or none is built in.
        ConfigError: The bundles do not go together, or a setting is impossible here.

    Examples:
        >>> predictor = load(["bundle"], threads=1)
        >>> print(predictor("lesion.jpg").diagnosis)
        BKL
    """
    paths = (
        [builtin()] if bundle is None else [bundle] if isinstance(bundle, str | Path) else bundle
    )
    networks = open_networks(
        find_bundles(map(Path, paths)),
        prevalence=None if prevalence is None else Path(prevalence),
        views=views,
        engine=engine,
        threads=threads,
        precision=precision,
        streams=streams,
    )
    return Predictor(*networks, threads=threads)


def _pieces(pictures: Iterable[AnyPicture]) -> Iterator[list[Given]]:
    given = (
        Given(f"picture {number}", picture)
        if isinstance(picture, np.ndarray)
        else Given(Path(picture).stem, Path(picture))
        for number, picture in enumerate(pictures)
    )
    while piece := list(islice(given, BATCH)):
        yield piece
