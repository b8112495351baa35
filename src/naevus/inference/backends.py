"""Where the batches of a job are predicted: here, or by the actors of Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from naevus.inference.inputs import ImageInput
from naevus.inference.pipeline import Pipeline
from naevus.inference.prediction import Prediction
from naevus.io.parallel import Workers, thread_count
from naevus.runs.prediction_tables import embeddings_schema, write_embeddings, write_part
from naevus.runs.predictions import key_after
from naevus.types import FailedImage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from naevus.images.preprocess import ImageFiles
    from naevus.images.read import Limits
    from naevus.inference.options import PredictionOptions
    from naevus.runs.predictions import PredictionsFolder


class Todo(NamedTuple):
    """A batch to predict.

    Attributes:
        key: The name of its part.
        images: Its images.
    """

    key: str
    images: Sequence[ImageFiles]


class Done(NamedTuple):
    """A predicted batch.

    Attributes:
        key: The key of the batch.
        part: The name of its part: the key, unless a file changed while it was read.
        images: The number of its images.
    """

    key: str
    part: str
    images: int


class Backend(Protocol):
    """Predicts batches and writes their parts."""

    @property
    def keeps_files(self) -> bool:
        """Whether masks and crops are written into the job's folder, rather than elsewhere."""

    def predict(
        self,
        todo: Sequence[Todo],
        folder: PredictionsFolder,
        options: PredictionOptions,
        limits: Limits,
    ) -> Iterator[Done]:
        """Yield each batch when its part is in the folder."""


class Here:
    """Predicts in this process, with threads.

    Args:
        threads: Threads that decode and write; None: one per processor.
    """

    keeps_files = True

    def __init__(self, threads: int | None = None) -> None:
        self._threads = thread_count(threads)

    def predict(
        self,
        todo: Sequence[Todo],
        folder: PredictionsFolder,
        options: PredictionOptions,
        limits: Limits,
    ) -> Iterator[Done]:
        """Predict batches in order; each is written while the next one is predicted."""
        inputs = ([ImageInput(each.image_id, each.path) for each in one.images] for one in todo)
        pipeline = Pipeline(options, limits, folder)
        with Workers(self._threads) as workers:
            outputs = zip(todo, pipeline.predict(inputs, workers), strict=True)

            def write(output: tuple[Todo, Sequence[Prediction | FailedImage]]) -> Done:
                (key, images), predictions = output
                part = key_after(key, images, limits)
                write_parts(folder, part, options, predictions)
                return Done(key, part, len(images))

            yield from workers.behind(write, outputs)


def file_kinds(prediction_options: PredictionOptions) -> tuple[str, ...]:
    """Return the kinds of files that are written for each image (`PredictionsFolder.place`)."""
    segmenter, outputs = prediction_options.segmenter, prediction_options.outputs
    lesions = segmenter is not None and segmenter.segments_lesions
    attributes = () if segmenter is None else segmenter.attributes
    made = (
        ("mask", outputs.masks and lesions),
        *((f"attribute {name}", outputs.masks) for name in attributes),
        ("crop", outputs.crops and bool(prediction_options.input_specs)),
        ("heatmap", bool(outputs.heatmaps)),
    )
    return tuple(kind for kind, wanted in made if wanted)


def write_parts(
    folder: PredictionsFolder,
    key: str,
    prediction_options: PredictionOptions,
    predictions: Sequence[Prediction | FailedImage],
) -> None:
    """Write the results of a batch; its rows come last, since they mark it as done."""
    schema = prediction_options.schema()
    rows = [each for each in predictions if isinstance(each, Prediction)]
    failed = sorted(each for each in predictions if isinstance(each, FailedImage))
    for each in failed:
        folder.forget(each.image_id)
    places = folder.places(file_kinds(prediction_options))
    sizes = folder.settle([row.image_id for row in rows], places)
    if prediction_options.outputs.embeddings:
        embeddings = {row.image_id: row.embedding for row in rows}
        write_embeddings(folder.embeddings_part(key), embeddings_schema(schema.about), embeddings)
    write_part(folder.part(key), schema, [row.to_row() for row in rows], failed, sizes)
