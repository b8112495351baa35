"""What a bundle of a run's finished folds would say, without any being exported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from naevus.bundles.bundle import Bundle
from naevus.bundles.spec import BundleSpec
from naevus.errors import RunError
from naevus.training.export.answers import Shipped, diagnosing_entry, outlining_entry
from naevus.training.export.provenance import about, add, limits_of
from naevus.training.selection import dataset_of

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.training.run import Run

LOOKED_AT = 200
"""Pictures whose format is looked at."""


def spec_of_run(run: Run, data: Path | None = None) -> BundleSpec:
    """Return the specification of all finished folds as one ensemble, with its figures.

    Args:
        run: The run.
        data: The data set, where it is not where the run found it; where it is nowhere, there are
            no subgroups.

    Raises:
        RunError: No fold is finished.
        BundleError: A fold's bundle is damaged.
        DataError: ``data`` is another data set.
    """
    folds = run.finished()
    if not folds:
        raise RunError(f"{run.folder}: no fold is finished", "train at least one fold")
    task = run.config.task
    part = "segmenter" if task == "segmentation" else "classifier"
    specs = [getattr(Bundle.read(run.bundle_folder(fold)).spec, part) for fold in folds]
    members = [
        member.model_dump() | {"file": f"fold-{fold}.onnx"}
        for fold, spec in zip(folds, specs, strict=True)
        for member in spec.members
    ]
    says: dict[str, Any] = about([run])
    says[part] = specs[0].model_dump() | {"members": members}
    dataset = dataset_of(run, data)
    if task == "segmentation":
        add(says, outlining_entry([run]))
    else:
        origins = tuple(f"{run.folder.name} fold {fold}" for fold in folds)
        add(says, diagnosing_entry([run], Shipped(origins, (tuple(folds),)), dataset))
    looked_at = run.answers()["image_id"].tolist()[:LOOKED_AT]
    add(says, limits_of(task, dataset, looked_at))
    return BundleSpec.model_validate(says)
