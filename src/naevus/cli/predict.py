"""``naevus predict``: pictures in, masks, crops and diagnoses out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from naevus.cli.console import console, progress

if TYPE_CHECKING:
    from naevus.inference.batch import Outcome

_FINDINGS = 1


# Written out again, for the rooms that hold them are slow to import; mypy sees that they agree.
Split = Literal["validation", "test"]
Only = Literal["masks", "crops"]
Views = Literal["none", "flips", "dihedral"]
Decision = Literal["balanced", "probable"]
Engine = Literal["openvino", "onnxruntime"]
Precision = Literal["f32", "bf16"]


def predict(
    pictures: Annotated[
        list[Path], typer.Argument(metavar="FILES|DIR...", help="Pictures, or folders of them.")
    ],
    *,
    bundle: Annotated[
        list[Path],
        typer.Option(
            help="A bundle, or a run for the bundles of all its folds. Give it again for the "
            "other task, or to average several."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    split: Annotated[
        Split | None, typer.Option(help="Take this split of the data sets in DIR.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="With --split: this part alone, such as task1 or task3.")
    ] = None,
    only: Annotated[Only | None, typer.Option(help="Write these alone, diagnose nothing.")] = None,
    views: Annotated[
        Views, typer.Option(help="Average over flipped (4) or flipped and turned (8) views.")
    ] = "none",
    decision: Annotated[
        Decision, typer.Option(help="Probabilities in the submission: balanced or natural.")
    ] = "balanced",
    engine: Annotated[Engine, typer.Option(help="What runs the networks.")] = "openvino",
    precision: Annotated[
        Precision, typer.Option(help="What the networks compute in (see naevus engines).")
    ] = "f32",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; all processors by default.")
    ] = None,
    megapixels: Annotated[
        float, typer.Option(min=0.01, help="Refuse pictures larger than this.")
    ] = 100,
) -> None:
    """Outline, crop and diagnose pictures with trained bundles. Research use only.

    Writes masks/, crops/, predictions.parquet and submission.csv into OUT. Started again after an
    interruption, it goes on where it was. Pictures that cannot be read are listed in refused.csv;
    the exit code is then 1.

    Examples:
      naevus predict lesion.jpg --bundle runs/seg --only masks --out outlines
      naevus predict photos --bundle runs/seg --bundle runs/cls --out answers
      naevus predict ISIC --split test --part task3 --bundle runs/cls --out test
    """
    from naevus.bundles.bundle import find_bundles
    from naevus.images.read import Limits
    from naevus.inference import batch, inputs
    from naevus.inference.engines import streams_for
    from naevus.inference.predictor import Classifier, Segmenter
    from naevus.inference.stream import processors

    sources = (
        inputs.find_pictures(pictures, without=out)
        if split is None
        else inputs.pictures_of_split(pictures, split, part)
    )
    bundles = find_bundles(bundle)
    segmenting = [each for each in bundles if each.spec.segmenter is not None]
    diagnosing = [each for each in bundles if each.spec.classifier is not None]
    if only == "masks":
        diagnosing = []
    how: dict[str, Any] = {
        "views": views,
        "engine": engine,
        "threads": threads,
        "precision": precision,
        "streams": streams_for(len(sources), threads or processors()),
    }
    segmenter = Segmenter(segmenting, **how) if segmenting else None
    classifier = Classifier(diagnosing, **how) if diagnosing else None
    with progress("predicting pictures", len(sources)) as move:
        outcome = batch.predict(
            sources,
            out,
            segmenter=segmenter,
            classifier=classifier,
            decision=decision,
            only=only,
            threads=threads,
            limits=Limits(pixels=round(megapixels * 1e6)),
            progress=move,
        )
    _report(outcome)
    if outcome.refused:
        raise typer.Exit(_FINDINGS)


def _report(outcome: Outcome) -> None:
    console.print(f"{outcome.predicted} pictures predicted by {len(outcome.members)} networks:")
    for member in outcome.members:
        console.print(f"  {member}")
    if outcome.reused:
        console.print(f"{outcome.reused} of them were done before.")
    for path in outcome.files:
        console.print(f"  {path}")
    for refused in outcome.refused:
        console.print(f"refused: {refused.path}: {refused.problem}", markup=False)
