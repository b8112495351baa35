"""Report sections on training, data, provenance, and the appearance of images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pandas as pd

from naevus.errors import ImageError
from naevus.evaluation.tables import has_values
from naevus.images import quality
from naevus.images.maskfile import read_mask
from naevus.images.read import read
from naevus.io.parallel import Workers, batches, cpu_count
from naevus.io.words import plural
from naevus.reports import figures
from naevus.reports.document import FigureSlot, Section, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from naevus.evaluation.labelled import LabelledPredictions
    from naevus.runs.results import Results
    from naevus.types import Unit


# The appearance of images: skin tone and quality.

TONES: Final = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
)
"""Skin tones above a typology angle in degrees (`naevus.images.quality.typology_angle`)."""
DARKEST: Final = "dark"
GOOD: Final = "nothing wrong"


class Appearance(NamedTuple):
    """The appearance of an image.

    Attributes:
        tone: The skin tone; None without a mask or with too little skin.
        quality: The first of the image's quality flags, or `GOOD`.
    """

    tone: str | None
    quality: str


def appearances(
    results: Results, progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame | None:
    """Return the `Appearance` of every readable image with a diagnosis, by image id.

    Args:
        results: The predictions; None is returned without their data set.
        progress: Called with (done, total) images.
    """
    if results.records is None or results.labelled is None or results.records["path"].isna().all():
        return None
    answered = results.labelled.table["image_id"]
    ids = [image_id for image_id in answered if image_id in results.records.index]
    found: dict[str, Appearance] = {}

    def appearance(image_id: str) -> Appearance | None:
        return _appearance(results, image_id)

    done = 0
    with Workers(cpu_count()) as workers:
        for piece in batches(ids):
            decoded = zip(piece, workers.each(appearance, piece), strict=True)
            found |= {name: each for name, each in decoded if isinstance(each, Appearance)}
            done += len(piece)
            if progress is not None:
                progress(done, len(ids))
    return pd.DataFrame.from_dict(found, orient="index", columns=Appearance._fields)


def tone_of(angle: float | None) -> str | None:
    """Return the skin tone of a typology angle.

    Examples:
        >>> tone_of(48.0), tone_of(-40.0), tone_of(None)
        ('light', 'dark', None)
    """
    if angle is None:
        return None
    return next((name for name, least in TONES if angle > least), DARKEST)


def _appearance(results: Results, image_id: str) -> Appearance | None:
    assert results.records is not None
    row: dict[Any, Any] = results.records.loc[image_id].to_dict()
    if pd.isna(row["path"]):
        return None
    pixels = read(Path(str(row["path"])), shortest=quality.SIDE)
    mask = _mask(results, image_id, row["mask_path"])
    if mask is not None and not mask.any():
        mask = None
    flags = quality.flags_of(pixels, mask)
    angle = None if mask is None else quality.typology_angle(pixels, mask)
    return Appearance(tone_of(angle), flags[0].replace("_", " ") if flags else GOOD)


def _mask(results: Results, image_id: str, true_mask: Any) -> NDArray[np.bool_] | None:
    """Return the predicted mask, otherwise the true one, otherwise None."""
    file = results.predicted_mask(image_id) or true_mask
    try:
        return read_mask(Path(file)) if pd.notna(file) else None
    except ImageError:
        return None


_MANY = 12
"""Tables of facts with more rows are collapsed."""
_CURVES = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_score": "score on the validation split",
}


def training_section(history: pd.DataFrame) -> Section:
    """Return learning curves and the last epoch of each fold."""
    columns = [name for name in _CURVES if has_values(history, name)]
    folds = history.groupby("fold")
    last = folds.tail(1).set_index("fold")
    table = pd.DataFrame(
        {
            "fold": last.index,
            "epochs": (last["epoch"] + 1).to_numpy(),
            **{_CURVES[name]: last[name].to_numpy() for name in columns},
        }
    )
    if "seconds" in history:
        table["seconds"] = folds["seconds"].sum().reindex(last.index).round().to_numpy(int)
    return Section(
        "training",
        "Training",
        ("The validation split consists of whole groups that are not used for training.",),
        (Table("last-epochs", "Last epoch", table),),
        tuple(
            FigureSlot(
                f"learning-{name.replace('_', '-')}",
                _CURVES[name].capitalize(),
                partial(figures.learning_figure, history, name, _CURVES[name]),
                "By epoch, one line per fold.",
            )
            for name in columns
        ),
    )


def data_section(results: Results) -> Section:
    """Return the numbers of images and lesions, and what was left out."""
    images, groups = results.images, plural(results.unit)
    several = int((images["group_id"].value_counts() > 1).sum())
    counts = pd.DataFrame(
        [
            *(one._asdict() for one in results.counts),
            {"what": "without a prediction", "images": len(results.unanswered)},
            {"what": f"{groups} with several images", "groups": several},
            *_duplicates(results),
        ]
    ).astype({"images": "Int64", "groups": "Int64"})
    counts = counts.rename(columns={"groups": groups})
    tables = [Table("counts", f"Images and {groups}", counts)]
    if results.labelled is not None:
        tables.append(Table("class-counts", "Diagnoses", _by_class(results.labelled, groups)))
    if len(results.unanswered):
        tables.append(
            Table("unanswered", "Without a prediction", results.unanswered, folded=_long(results))
        )
    return Section("data", "Data", tuple(_about(results)), tuple(tables))


def provenance_section(results: Results) -> Section:
    """Return configuration, versions, hashes, and the command that reproduces the results."""
    tables = tuple(
        Table(
            title.lower(),
            title,
            pd.DataFrame({"name": list(facts), "value": list(facts.values())}),
            folded=len(facts) > _MANY,
        )
        for title, facts in results.facts.items()
    )
    return Section(
        "provenance",
        "Provenance",
        ("Folders are shown without their parents; complete the paths to run the command.",),
        tables,
        command=results.command,
    )


def _by_class(classified: LabelledPredictions, groups: str) -> pd.DataFrame:
    classes = classified.table.groupby("diagnosis")["group_id"]
    names = {one.code: one.name for one in classified.taxonomy.diagnoses}
    present = [code for code in names if code in classes.groups]
    table = pd.DataFrame({"class": present, "name": [names[code] for code in present]})
    table["images"] = classes.size()[present].to_numpy()
    table[groups] = classes.nunique()[present].to_numpy()
    table["fraction of images"] = table["images"] / table["images"].sum()
    return table


def _duplicates(results: Results) -> list[dict[str, Any]]:
    """Return the number of groups that join several lesion ids: their images are duplicates."""
    if results.records is None or results.unit != "lesion":
        return []
    images = results.images.set_index("image_id")["group_id"]
    lesions = results.records["lesion_id"].groupby(images).nunique()
    return [{"what": "groups that join several lesion ids", "groups": sum(lesions > 1)}]


_GROUPS: Final[dict[Unit, str]] = {
    "lesion": "A group is a lesion, or several lesions with duplicate images.",
    "patient": "A group is a patient, with all lesions.",
    "group": "A group is a patient with all lesions, or a lesion without a known patient; those "
    "that share a lesion, a group or duplicate images are one.",
}


def _about(results: Results) -> list[str]:
    if results.records is None:
        return ["Without the data set, images, subgroups and duplicates are not shown."]
    parted = (
        "Folds and resampling never split" if results.out_of_fold else "Resampling never splits"
    )
    return [
        (
            f"{_GROUPS[results.unit]} "
            f"{parted} a group. The command naevus data check finds duplicates."
        )
    ]


def _long(results: Results) -> bool:
    return len(results.unanswered) > _MANY
