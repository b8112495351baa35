"""The Python interface: `load` returns a `Predictor`, which turns images into predictions."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from naevus import __version__
from naevus.datasets.sources import find_images, kept_ids
from naevus.errors import ConfigError, DataError, ImageError
from naevus.images.read import Limits
from naevus.inference.abilities import Abilities
from naevus.inference.engines.base import refuse_forked
from naevus.inference.inputs import ImageInput, image_input_of, is_one, table_of
from naevus.inference.lesions import known_lesions, lesion_name, lesions_of
from naevus.inference.networks import find_job_bundles, open_networks
from naevus.inference.options import OUTPUTS, PredictionOptions
from naevus.inference.pipeline import Pipeline
from naevus.io.parallel import BATCH, Workers, thread_count
from naevus.io.settings import check_choice
from naevus.types import FailedImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from naevus.inference.backends import Backend
    from naevus.inference.batch import BatchResult
    from naevus.inference.classifier import Classifier
    from naevus.inference.engines import EngineName
    from naevus.inference.inputs import ImageLike, MetadataLike
    from naevus.inference.lesions import Lesion
    from naevus.inference.options import OutputOptions
    from naevus.inference.prediction import Prediction
    from naevus.inference.segmenter import Segmenter
    from naevus.types import TTA, Precision


_log = logging.getLogger(__name__)

_LIMITS = Limits()


class Predictor:
    """Segments and classifies images; create one with `naevus.load`.

    The networks are loaded once, so reuse one predictor for all images. Several threads may use it
    at the same time. Its own threads read and crop images in the background. A forked process
    cannot use it and gets an error. A spawned process may receive a predictor made by
    `naevus.load`, and loads it again.

    Args:
        segmenter: The segmenter; None if the classifier needs no masks.
        classifier: The classifier; None for masks only.
        threads: Threads that read images; None: one per processor.
        limits: Limits that are checked before decoding.
        made_by: The arguments of `load`, to load the predictor in another process.

    Raises:
        ConfigError: Both are missing, or the classifier needs crops and there is no segmenter.

    Examples:
        >>> predictor = load("bundle")
        >>> prediction = predictor("lesion.jpg")
        >>> prediction.mask.shape == (prediction.height, prediction.width)
        True
        >>> list(prediction.probabilities)
        ['MEL', 'NV', 'BCC', 'AKIEC', 'BKL', 'DF', 'VASC']
        >>> max(prediction.probabilities, key=prediction.probabilities.get) == prediction.predicted
        True
        >>> prediction.heatmap.shape == prediction.mask.shape
        True

        Pixels work as well as files, and lists as well as single images:

        >>> import numpy as np
        >>> pixels = np.full((120, 160, 3), 200, np.uint8)
        >>> pixels[30:90, 50:110] = (90, 50, 40)
        >>> dark, again = predictor([pixels, "lesion.jpg"])
        >>> dark.box
        Box(left=50, top=30, right=110, bottom=90)
        >>> dark.flags
        {}
        >>> again.to_dict() == prediction.to_dict()
        True

        Stream many images one by one, in constant memory:

        >>> for prediction in predictor.stream(["lesion.jpg", "absent.jpg"], errors="yield"):
        ...     if isinstance(prediction, FailedImage):
        ...         print(prediction.problem)
        ...     else:
        ...         print(prediction.image_id, prediction.crop_mode)
        lesion crop
        does not exist; check the name and the folder
    """

    def __init__(
        self,
        segmenter: Segmenter | None,
        classifier: Classifier | None,
        *,
        threads: int | None = None,
        limits: Limits = _LIMITS,
        made_by: Mapping[str, Any] | None = None,
    ) -> None:
        Abilities.of_loaded(segmenter, classifier).check()
        input_specs = () if classifier is None else classifier.input_specs
        options = PredictionOptions(segmenter, classifier, input_specs)
        self._loaded: Pipeline | None = Pipeline(options, limits)
        self._threads = thread_count(threads)
        self._process = os.getpid()
        self._made_by = made_by

    @property
    def _pipeline(self) -> Pipeline:
        if self._loaded is None:
            raise ConfigError("this predictor is closed", "load another with naevus.load")
        return self._loaded

    def __repr__(self) -> str:
        """Name the networks."""
        if self._loaded is None:
            return "<Predictor: closed>"
        return f"<Predictor: {', '.join(self._pipeline.prediction_options.members())}>"

    def __enter__(self) -> Self:
        """Return the predictor, which the block's end closes."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the networks and their memory; a stream that has begun may still end.

        Closing twice is no error. A closed predictor raises a `ConfigError` when it is used.

        Examples:
            >>> with load("bundle") as predictor:
            ...     print(predictor("lesion.jpg").predicted)
            BKL
            >>> predictor
            <Predictor: closed>
        """
        self._loaded = None

    def info(self) -> dict[str, Any]:
        """Return what predicts, in JSON's types: versions, bundles, networks and settings.

        Returns:
            ``naevus_version``; ``bundles``: the folder of each by SHA-256; ``threads``;
            ``segmentation`` and ``classification``: names of networks, engine, precision,
            device, instructions and test-time augmentation, and for classification classes,
            taxonomy, coverage of prediction sets and prevalence; None where there is none.

        Raises:
            ConfigError: The predictor is closed.

        Examples:
            >>> load("bundle").info()["classification"]["classes"]
            ['MEL', 'NV', 'BCC', 'AKIEC', 'BKL', 'DF', 'VASC']
        """
        options = self._pipeline.prediction_options
        segmenter, classifier = options.segmenter, options.classifier
        return {
            "naevus_version": __version__,
            "bundles": {bundle.sha256: str(bundle.folder) for bundle in options.bundles},
            "threads": self._threads,
            "segmentation": segmenter and segmenter.info(),
            "classification": classifier and classifier.info(),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments of `load`, so that a spawned process can load it again.

        Raises:
            ConfigError: `load` did not create the predictor.
        """
        if self._made_by is None:
            raise ConfigError(
                "only a predictor from naevus.load can be sent to another process",
                "create one there",
            )
        return _load_anew, (dict(self._made_by),)

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageLike, *, metadata: MetadataLike | None = None
    ) -> Prediction: ...

    @overload
    def __call__(
        self, images: Iterable[ImageLike], *, metadata: MetadataLike | None = None
    ) -> list[Prediction]: ...

    def __call__(
        self, images: ImageLike | Iterable[ImageLike], *, metadata: MetadataLike | None = None
    ) -> Prediction | list[Prediction]:
        """Predict one or more images.

        An image is one of these:

        - the path of a file;
        - its bytes, or a stream opened with ``rb`` (read from its current position, not closed);
        - a Pillow image: converted to sRGB by its profile, rotated upright by its EXIF and
          composited over white, like a file;
        - an array, or a tensor on the CPU: uint8, 0 to 255, in sRGB, H x W x 3 in the order red,
          green, blue, or H x W in grey. Channels may come first (3 x H x W) if the last axis
          cannot be channels. OpenCV's order is blue, green, red and cannot be recognised: convert
          its pixels with ``cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)``.

        Args:
            images: An image, or an iterable of images; or the path of a folder, for all images
                below it.
            metadata: The patient's age, sex and site, which change the odds of the diagnoses:
                ``{"age": 55, "sex": "female", "site": "back"}`` for all images, such mappings by
                image id, a table with a row an image, or its file (see ``naevus predict``).

        Returns:
            A prediction; or a list in the same order, sorted by id for a folder.

        Raises:
            ImageError: A file cannot be read; no other prediction is returned. Use `stream` to
                continue after errors.
            DataError: An object is not an image, pixels have another shape or type, or metadata
                are invalid.
            ConfigError: There are metadata, and a bundle has no model of the patient's data.
        """
        if is_one(images) and not _is_folder(images):
            return next(self.stream([images], metadata=metadata))  # type: ignore[list-item]
        return list(self.stream(images, metadata=metadata))  # type: ignore[arg-type]

    @overload
    def stream(
        self,
        images: str | Path | Iterable[ImageLike],
        *,
        errors: Literal["raise"] = "raise",
        metadata: MetadataLike | None = None,
    ) -> Iterator[Prediction]: ...

    @overload
    def stream(
        self,
        images: str | Path | Iterable[ImageLike],
        *,
        errors: Literal["yield"],
        metadata: MetadataLike | None = None,
    ) -> Iterator[Prediction | FailedImage]: ...

    def stream(
        self,
        images: str | Path | Iterable[ImageLike],
        *,
        errors: Literal["raise", "yield"] = "raise",
        metadata: MetadataLike | None = None,
    ) -> Iterator[Prediction | FailedImage]:
        """Predict images one by one, in constant memory.

        As in ``naevus predict``, the next batch of 32 images is read while the networks process
        the current one. Several batches are therefore taken from ``images`` before the first
        prediction is yielded.

        Args:
            images: Images as in a call, in any number and order; or a folder, for all images below
                it, sorted by id. Do not change pixels until their prediction was yielded.
            errors: What to do with an unreadable file. ``raise``: end the stream with its error.
                ``yield``: yield a `FailedImage` with id, path and problem instead.
            metadata: As in a call. The logger ``naevus`` reports values without effect.

        Yields:
            The prediction of each image, in the given order.

        Raises:
            ImageError: A file cannot be read, and ``errors`` is ``raise``.
            NaevusError: The process was forked after the predictor was loaded.
            DataError: An object is not an image, pixels have another shape or type, or the folder
                has no images.
        """
        check_choice("errors", errors, ("raise", "yield"))
        refuse_forked(self._process)
        pipeline = self._pipeline
        if metadata is not None:
            pipeline = pipeline.with_metadata(table_of(metadata), _log.warning)
        failed, given = self._given(images)
        with Workers(self._threads) as workers:
            for piece in chain([failed], pipeline.predict(_pieces(given), workers)):
                for prediction in piece:
                    if isinstance(prediction, FailedImage) and errors == "raise":
                        raise ImageError.of_line(Path(prediction.path), prediction.problem)
                    yield prediction

    def lesions(
        self, images: Mapping[str, Iterable[ImageLike]], metadata: MetadataLike | None = None
    ) -> list[Lesion]:
        """Predict lesions from all their images: the mean of the images' logits.

        An image that cannot be read is named in its lesion, which is predicted from the others.

        Args:
            images: The images of each lesion, by lesion id.
            metadata: As in a call, by image id.

        Returns:
            The predictions, sorted by lesion id.

        Raises:
            ConfigError: There is no classifier.
            DataError: An object is not an image, or a lesion has no images, no id, or an image
                rather than a list.

        Examples:
            >>> (lesion,) = load("bundle").lesions({"left arm": ["lesion.jpg", "absent.jpg"]})
            >>> lesion.images, lesion.failed, lesion.predicted
            (('lesion',), ('absent',), 'BKL')
        """
        classifier = self._pipeline.prediction_options.classifier
        if classifier is None:
            raise ConfigError("lesions are predicted by a classifier", "name a bundle that has one")
        if single := [name for name, own in images.items() if is_one(own)]:
            raise DataError(
                f"lesion {single[0]} is not a list of images", "put its image in a list"
            )
        pairs = []
        for lesion, own in images.items():
            name, files = lesion_name(lesion), list(own)
            if name is None or not files:
                raise DataError(
                    f"lesion {lesion} has no {'images' if name else 'id'}", "leave it out"
                )
            pairs += [(name, image) for image in files]
        found = self.stream([image for _, image in pairs], errors="yield", metadata=metadata)
        outcomes = zip((name for name, _ in pairs), found, strict=True)
        return lesions_of(outcomes, classifier.sets_of)

    def to_folder(
        self,
        images: str | Path | Iterable[str | Path],
        out: str | Path,
        outputs: OutputOptions = OUTPUTS,
        *,
        lesions: Mapping[str, str] | None = None,
        metadata: MetadataLike | None = None,
        shard: str | None = None,
        backend: Backend | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> BatchResult:
        """Predict images into a folder, as ``naevus predict --out`` does.

        Calling it again resumes an interrupted job. Unusable images are listed in
        ``failed.csv`` and in the result, and the others are predicted.

        Args:
            images: A file, a folder, or several of them.
            out: The folder: it gets ``predictions.parquet``, ``predictions.csv``, masks and crops.
            outputs: What else to write, or to leave out: ``OutputOptions(heatmaps=True)``.
            lesions: The lesion of each image, by image id: ``lesions.parquet`` has a row for each.
                Images whose lesion is None, NaN or empty are left out of it.
            metadata: As in a call.
            shard: Predict only this part of the images, such as ``"2/16"``;
                `naevus.inference.gather` joins the parts.
            backend: Where to predict, such as `naevus.inference.ray.RayBackend`; None: in this
                process.
            progress: Called with (done, total) images.

        Returns:
            The numbers of images, the failed images, and the written files.

        Raises:
            DataError: There is no image, or a lesion's id is neither text nor a whole number.
            ConfigError: An option has no effect, a bundle lacks what it needs, or there is no such
                shard.
            NaevusError: ``out`` contains other predictions, is in use, or the disk is full.

        Examples:
            >>> result = load("bundle").to_folder(["lesion.jpg"], "predicted")
            >>> result.predicted, result.table.name
            (1, 'predictions.parquet')
        """
        from naevus.inference.batch import predict  # noqa: PLC0415 (needs pyarrow)
        from naevus.runs.shards import Shard  # noqa: PLC0415 (needs pandas)

        refuse_forked(self._process)
        paths = [images] if isinstance(images, str | os.PathLike) else list(images)
        folder, options = Path(out), self._pipeline.prediction_options
        found = find_images(map(Path, paths), without=folder, kept=kept_ids(folder))
        return predict(
            found.sources,
            folder,
            outputs,
            segmenter=options.segmenter,
            classifier=options.classifier,
            metadata=None if metadata is None else table_of(metadata),
            threads=self._threads,
            limits=self._pipeline.limits,
            unusable=found.failed,
            lesions=None if lesions is None else known_lesions(lesions),
            shard=None if shard is None else Shard.parse(shard),
            backend=backend,
            progress=progress,
        )

    def _given(
        self, images: str | Path | Iterable[ImageLike]
    ) -> tuple[Sequence[FailedImage], Iterator[ImageInput]]:
        if isinstance(images, str | os.PathLike):
            found = find_images([Path(images)])
            return found.failed, (ImageInput(each.image_id, each.path) for each in found.sources)
        if is_one(images) or isinstance(images, Mapping) or not isinstance(images, Iterable):
            raise DataError(
                f"{type(images).__name__} is not an image, a folder or a list of images",
                "give a path, bytes, a stream, a Pillow image, an array, a tensor, or a list",
            )
        limits = self._pipeline.limits
        return (), (image_input_of(each, number, limits) for number, each in enumerate(images))


def load(
    bundle: Path | str | Sequence[Path | str] | None = None,
    *,
    tta: TTA = "none",
    engine: EngineName | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
    streams: int = 1,
    device: str = "auto",
    prevalence: Path | str | None = None,
    attributes: bool = True,
) -> Predictor:
    """Load one or more bundles for prediction.

    Args:
        bundle: A bundle's folder or ``.naevus`` file, or a run for the bundles of all its folds;
            or a list of these, for both tasks or an ensemble. None: the built-in bundle.
        tta: Test-time augmentation: ``none``, ``half-turn`` (2 transforms), ``flips`` (4) or
            ``d4`` (8).
        engine: ``openvino`` or ``onnxruntime``. None: the best one here. It is found by a trial on
            the bundle's sample, once per machine and bundle, for up to 15 s. The result is stored
            in the user's cache; if that is impossible, the choice is OpenVINO in fp32. The logger
            ``naevus`` reports it.
        precision: ``fp32``, or ``bf16`` if the processor supports it. None: the best one, found in
            the same trial.
        threads: Number of threads; None: one per processor of this process.
        streams: Number of chunks of a batch that are computed in parallel. 1 has the lowest
            latency; for thousands of images, as many as threads are faster.
        device: ``cpu``; ``cuda`` or ``cuda:N`` for a GPU, which needs onnxruntime-gpu in place of
            onnxruntime; or ``auto``: with ONNX Runtime a GPU if there is one, otherwise the CPU.
        prevalence: A TOML file with the prevalence of each diagnosis at the images' origin
            (``MEL = 0.05``, one line each), to which natural probabilities are re-weighted.
        attributes: Whether to segment dermoscopic attributes, if a bundle has networks for them;
            without, prediction is faster.

    Returns:
        The predictor.

    Raises:
        BundleError: A bundle is missing, damaged or has another schema, or none is built in.
        ConfigError: The bundles do not fit together, the requested setup does not run here, or a
            setting is invalid.

    Examples:
        >>> predictor = load(["bundle"], threads=1)
        >>> print(predictor("lesion.jpg").predicted)
        BKL
    """
    made_by = locals().copy()
    paths = [bundle] if isinstance(bundle, str | Path) else bundle
    bundles = find_job_bundles(paths, attributes=attributes)
    Abilities.of(bundles, attributes=attributes).check()
    networks = open_networks(
        bundles,
        attributes=attributes,
        prevalence=None if prevalence is None else Path(prevalence),
        tta=tta,
        engine=engine,
        threads=threads,
        precision=precision,
        streams=streams,
        device=device,
    )
    predictor = Predictor(*networks, threads=threads, made_by=made_by)
    _log.info("naevus %s loaded %r", __version__, predictor)
    return predictor


def _load_anew(made_by: Mapping[str, Any]) -> Predictor:
    return load(**made_by)


def _pieces(images: Iterator[ImageInput]) -> Iterator[list[ImageInput]]:
    while piece := list(islice(images, BATCH)):
        yield piece


def _is_folder(given: object) -> bool:
    return isinstance(given, str | os.PathLike) and os.path.isdir(given)  # noqa: PTH112
