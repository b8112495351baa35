"""``naevus shortcuts``: what can be guessed of the diagnoses without the lesion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.answers import AllowMissing, open_run
from naevus.cli.console import console, errors, progress
from naevus.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from naevus.evaluation.shortcuts import ShortcutScores
    from naevus.images.preprocess import Source
    from naevus.inference.hidden import Hiding
    from naevus.runs.run import Run
    from naevus.taxonomy import Taxonomy

_METADATA = "age, sex and site alone"
_OWN = "the run's own answers"
_BY_WAY = {
    "whole": "embedding of the whole picture",
    "blanked": "... with the lesion filled",
    "common hole": "... with a common hole filled",
    "border ring": "... of the border ring alone",
}
_FITTING = "... of lesions that fit in it"


def shortcuts(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of classification.")],
    data: Annotated[
        Path | None, typer.Option(help="Its data set, with masks, if it is no longer there.")
    ] = None,
    allow_missing: AllowMissing = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Tell how well diagnoses are guessed from what is not the lesion.

    Gradient boosting guesses by age, sex and site alone; logistic regression by the run's frozen
    embeddings of pictures whose lesion is hidden: filled with the mean colour of the skin, in its
    own outline or in a hole that is the same in all pictures, or all but a ring at the border.
    What is far above chance there may be learnt in place of the lesion. Every guess is about a
    lesion that neither network nor guesser saw. Kept in RUN/shortcuts.json.

    Examples:
      naevus shortcuts runs/cls
      naevus shortcuts runs/cls --data ISIC2018 --json
    """
    from naevus.io.files import write_json
    from naevus.runs.run import dataset_of

    opened = open_run(run, allow_missing=allow_missing)
    if opened.config.task != "classification":
        raise DataError(f"{run}: is no run of classification", "name one")
    table = opened.answers()
    dataset = dataset_of(opened, data)
    if dataset is None:
        raise DataError(f"{opened.inputs['data']}: is not there", "name the data set with --data")
    records = dataset.table.drop_duplicates("image_id").set_index("image_id", drop=False)
    scores, hiding = _scores(opened, table, records)
    told = _told(hiding, scores, len(table))
    found = {**scores.to_dict(), **told}
    write_json(run / "shortcuts.json", found)
    if json:
        console.print_json(data=found)
        return
    for part in _tables(scores, told):
        console.print(part)
    errors.print("Research use only, never a diagnosis.", style="dim")


def _scores(run: Run, table: pd.DataFrame, records: pd.DataFrame) -> tuple[ShortcutScores, Hiding]:
    import numpy as np

    from naevus.evaluation.shortcuts import ShortcutScores
    from naevus.evaluation.tables import probabilities, taxonomy_of
    from naevus.inference.hidden import hiding_of

    taxonomy = taxonomy_of(table)
    sources = _sources(table, records)
    with errors.status("drawing the common hole"):
        hiding = hiding_of(sources)
    parts = [_of_fold(run, fold, table, sources, hiding, taxonomy) for fold in run.finished()]
    ids = [image_id for known, _ in parts for image_id in known]
    chosen = table.set_index("image_id", drop=False).loc[ids]
    own = probabilities(chosen, taxonomy)[1]
    balanced = {_OWN: own}
    for way, name in _BY_WAY.items():
        balanced[name] = np.concatenate([guessed[way] for _, guessed in parts])
        if way == "common hole":
            balanced[_FITTING] = balanced[name]
    with errors.status("guessing by age, sex and site"):
        balanced[_METADATA] = _by_metadata(run, records, ids, taxonomy)
    truth, groups = chosen["truth"].tolist(), chosen["group_id"].tolist()
    within = {_FITTING: np.isin(ids, list(hiding.fits))}
    with errors.status("scoring the guesses"):
        return ShortcutScores.of(balanced, truth, groups, taxonomy, within), hiding


def _sources(table: pd.DataFrame, records: pd.DataFrame) -> list[Source]:
    from naevus.images.preprocess import Source

    there = records[records["image_id"].isin(table["image_id"])]
    there = there[there["path"].notna() & there["mask_path"].notna()]
    if there.empty:
        raise DataError(
            "no picture of the run has a mask", "name its data set, with masks, with --data"
        )
    return [
        Source(image_id, Path(path), Path(mask))
        for image_id, path, mask in there[["image_id", "path", "mask_path"]].to_numpy()
    ]


def _of_fold(
    run: Run,
    fold: int,
    table: pd.DataFrame,
    sources: Sequence[Source],
    hiding: Hiding,
    taxonomy: Taxonomy,
) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Return the ids of a fold's pictures, and guesses of their diagnoses by each embedding."""
    from naevus.bundles.bundle import Bundle
    from naevus.evaluation.shortcuts import by_embeddings
    from naevus.inference.hidden import hidden_features

    rows = table[table["fold"] == fold].set_index("image_id")
    own = [source for source in sources if source.image_id in rows.index]
    bundle = Bundle.read(run.bundle_folder(fold))
    with progress(f"hiding the lesions of fold {fold}", len(own)) as move:
        features = hidden_features(bundle, own, hiding, progress=move)
    known = rows.loc[features.ids]
    truth, groups = known["truth"].tolist(), known["group_id"].tolist()
    with errors.status(f"guessing by the embeddings of fold {fold}"):
        guesses = {
            way: by_embeddings(embedded, truth, groups, taxonomy.codes)
            for way, embedded in features.embeddings.items()
        }
    return features.ids, guesses


def _by_metadata(
    run: Run, records: pd.DataFrame, ids: Sequence[str], taxonomy: Taxonomy
) -> NDArray[np.float64]:
    """Guess by the models of the run's folds, all of them: they need no network."""
    import pandas as pd

    from naevus.evaluation.shortcuts import by_metadata

    folds = run.folds.table.set_index("image_id")["fold"]
    folds = folds[folds != "test"]  # what stands apart for a last test teaches nobody
    known = records[records["diagnosis"].notna() & records["image_id"].isin(folds.index)]
    parts = pd.factorize(known["image_id"].map(folds))[0]
    guessed = by_metadata(known, known["diagnosis"].tolist(), parts, taxonomy.codes)
    places = known.index.get_indexer(pd.Index(ids))
    if (places < 0).any():  # -1 would be the last picture's guess
        strange = [image_id for image_id, place in zip(ids, places, strict=True) if place < 0]
        raise DataError(
            f"{run.folder}: {len(strange)} pictures with an answer have no diagnosis in the data "
            f"set or stand in no fold, such as {strange[0]}",
            "name the run's own data set with --data",
        )
    return guessed[places]


def _told(hiding: Hiding, scores: ShortcutScores, answers: int) -> dict[str, float]:
    return {
        "without_mask": answers - scores.pictures,
        "hole": float(hiding.hole.mean()),
        "fits": len(hiding.fits) / scores.pictures,
    }


def _tables(scores: ShortcutScores, told: Mapping[str, float]) -> Iterable[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from naevus.cli.score_tables import spread

    table = Table(
        "guessed from", title=f"{scores.pictures:,} pictures of {scores.groups:,} lesions"
    )
    for column in ("lesions", "balanced accuracy", "mean AUC", "melanoma AUC"):
        table.add_column(column, justify="right")
    for guess in scores.guesses:
        table.add_row(
            guess.source,
            f"{guess.groups:,}",
            spread(guess.balanced_accuracy),
            spread(guess.mean_auc),
            spread(guess.melanoma),
        )
    table.add_row("chance", "", f"{scores.chance:.3f}", "0.500", "0.500", style="dim")
    table.caption = "95 % intervals by lesion; AUCs rank balanced probabilities"
    yield table
    if told["without_mask"]:
        yield Text(
            f"note: {told['without_mask']:,} pictures with an answer have no plausible mask and "
            "are left out",
            style="yellow",
        )
    yield Text(
        f"The common hole covers {told['hole']:.0%} of the picture; {told['fits']:.0%} of the "
        "lesions fit in. Of the others, what sticks out is filled too and may tell their size."
    )
