"""``naevus evaluate``: how good a run's, or a prediction's, answers are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naevus.cli.console import console, errors, progress
from naevus.errors import DataError, RunError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from naevus.evaluation.intervals import Interval
    from naevus.evaluation.scoring.classification import ClassificationScores
    from naevus.evaluation.scoring.segmentation import SegmentationScores
    from naevus.training.run import Run

    Scored = tuple[ClassificationScores | SegmentationScores, dict[str, Interval]]


def evaluate(
    results: Annotated[
        Path, typer.Argument(metavar="RUN|PREDICTIONS", help="A run, or what predict wrote.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Where the truth of PREDICTIONS is: a data set.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Other copies of a run's pictures, each for the fold that never saw it."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Score out-of-fold predictions of a run, or predictions against a data set's truth.

    Masks get Jaccard and Dice, diagnoses balanced accuracy and its company, each with an interval
    by lesion. A run's scores are kept in its scores.json.

    Examples:
      naevus evaluate runs/cls
      naevus evaluate runs/cls --pictures ISIC2018_Task3_Training_Input_sharp
      naevus evaluate answers --data ISIC2018
    """
    scored: dict[str, Scored]
    if (results / "run.toml").exists():
        scored = _of_run(results, pictures)
    elif (results / "predictions.parquet").exists():
        scored = _of_predictions(results, data)
    else:
        raise RunError(
            f"{results}: is neither a run nor predictions", "name a folder of train or predict"
        )
    _show(scored, as_json=json)


def _of_run(folder: Path, pictures: Path | None) -> dict[str, Scored]:
    from naevus.evaluation.outoffold import segmentation_scores
    from naevus.files import write_json
    from naevus.training.run import Run

    run = Run.open(folder)
    table = run.join()
    folds = ", ".join(str(fold) for fold in run.finished())
    title = f"held out by fold {folds}"
    if run.config.task == "segmentation":
        if pictures is not None:
            raise DataError("--pictures needs a classification run", "leave it out")
        scored: dict[str, Scored] = {title: segmentation_scores(table)}
    elif pictures is None:
        scored = {title: _classified(table)}
    else:
        copies = _copies(run, pictures, table)
        same = table[table["image_id"].isin(copies["image_id"])]
        scored = {
            f"{title}, as trained": _classified(same),
            f"{title}, copies in {pictures.name}": _classified(copies),
        }
    if pictures is None:
        write_json(folder / "scores.json", _as_json(scored))
    return scored


def _classified(table: pd.DataFrame) -> Scored:
    from naevus.evaluation.outoffold import classification_scores, taxonomy_of

    return classification_scores(table, taxonomy_of(table))


def _copies(run: Run, pictures: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return the out-of-fold table of other copies of some of the run's pictures."""
    import pandas as pd

    from naevus.bundles.bundle import Bundle
    from naevus.inference.copies import copies_for
    from naevus.inference.heldout import heldout_logits
    from naevus.inference.inputs import find_pictures

    masks = run.inputs["masks"]
    files = {source.image_id: source.path for source in find_pictures([pictures])}
    tables = []
    for fold in run.finished():
        bundle = Bundle.read(run.bundle_folder(fold))
        ids = sorted(set(table.loc[table["fold"] == fold, "image_id"]).intersection(files))
        squares = copies_for(bundle, files, Path(masks) if masks else None)
        with progress(f"predicting fold {fold}", len(ids)) as move:
            tables.append(heldout_logits(bundle, squares, ids, progress=move))
    found = pd.concat(tables, ignore_index=True)
    if found.empty:
        raise DataError(f"{pictures}: no copy of a held-out picture", "name files by image id")
    known = [name for name in table.columns if not name.startswith("logit_")]
    return found.merge(table[known], on="image_id", validate="one_to_one")


def _of_predictions(folder: Path, data: Path | None) -> dict[str, Scored]:
    import pandas as pd

    from naevus.datasets.layouts import load
    from naevus.evaluation.outoffold import scored, segmentation_scores
    from naevus.evaluation.scoring.folders import compare_folder

    if data is None:
        raise DataError(f"{folder}: needs the truth", "name its data set with --data")
    dataset = load(data)
    table = pd.read_parquet(folder / "predictions.parquet")
    truth = dataset.table.drop_duplicates("image_id").set_index("image_id")
    table = table[table["image_id"].isin(truth.index)]
    table = table.assign(
        truth=table["image_id"].map(truth["diagnosis"]),
        group_id=table["image_id"].map(truth["group_id"]),
        mask_path=table["image_id"].map(truth["mask_path"]),
    )
    found: dict[str, Scored] = {}
    masks = table[table["mask_path"].notna()]
    if len(masks) and (folder / "masks").is_dir():
        paths = map(Path, masks["mask_path"])
        truths = dict(zip(masks["image_id"], paths, strict=True))
        compared = compare_folder(truths, folder / "masks")
        found["masks"] = segmentation_scores(compared.merge(masks[["image_id", "group_id"]]))
    diagnosed = table[table["truth"].notna()]
    codes = dataset.taxonomy.codes
    if len(diagnosed) and f"p_{codes[0]}" in table.columns:
        natural, balanced = (
            diagnosed[[f"{kind}_{code}" for code in codes]].to_numpy() for kind in "pb"
        )
        found["diagnoses"] = scored(diagnosed, natural, balanced, dataset.taxonomy)
    if not found:
        raise DataError(
            f"{data}: has no truth for the pictures of {folder}", "name the data set they are from"
        )
    return found


def _as_json(scored: Mapping[str, Scored]) -> dict[str, Any]:
    return {
        title: {
            **scores.to_dict(),
            "intervals": {name: interval._asdict() for name, interval in intervals.items()},
        }
        for title, (scores, intervals) in scored.items()
    }


def _show(scored: Mapping[str, Scored], *, as_json: bool) -> None:
    from naevus.cli.score_tables import classification_tables, segmentation_tables
    from naevus.evaluation.scoring.segmentation import SegmentationScores

    if as_json:
        console.print_json(data=_as_json(scored))
        return
    for title, (scores, intervals) in scored.items():
        console.rule(title, align="left")
        tables = (
            segmentation_tables(scores)
            if isinstance(scores, SegmentationScores)
            else classification_tables(scores)
        )
        for table in tables:
            console.print(table)
        for name, interval in intervals.items():
            console.print(f"{name.replace('_', ' ')}: {interval}, 95 % interval by group")
    errors.print("Research use only, never a diagnosis.", style="dim")
