"""Join bundles into the built-in one, with its figures from out-of-fold tables.

    python tools/build_builtin.py BUNDLE... --oof TABLE... --data DATA... [--out FOLDER]

BUNDLE... are the present built-in bundle and others that add networks to it. Their networks are
joined by task, in this order. TABLE... are out-of-fold tables: one for lesion masks, one for
attributes, and one per classifier, in the classifiers' order. DATA... are the data sets with these
images. Calibration, prediction sets, the patient model, the thresholds of attributes and all scores
are fitted again, on the images that all tables of a task have. OOD statistics are taken from the
bundles. The outputs of the sample are computed again, by ONNX's reference evaluator.

Each network then predicts the images that it held out, as stored and with the masks of this bundle.
Nothing is written if a network's predictions resemble another network's table more than its own, or
if anything else does not fit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import numpy as np
import pandas as pd

from naevus import __version__
from naevus.bundles.bundle import BUILTIN, Bundle, write_bundle
from naevus.bundles.ood import OOD_FILE, ood_statistics_of, write_ood_statistics
from naevus.bundles.sample import SAMPLE_FILE
from naevus.bundles.spec import BundleSpec, ClassifierMember
from naevus.datasets.layouts import load
from naevus.datasets.sources import mask_file
from naevus.errors import BundleError, DataError, NaevusError
from naevus.evaluation.attributes import is_attributes_table
from naevus.evaluation.out_of_fold import combined, probabilities, taxonomy_of
from naevus.evaluation.tables import in_common
from naevus.export.precision import Variant, choose, costs_of
from naevus.images.read import read, write_png
from naevus.inference.engines.openvino import precisions
from naevus.inference.ensemble import check_together
from naevus.inference.out_of_fold import copies_for, oof_attributes, oof_logits, oof_scores
from naevus.inference.segmenter import Segmenter
from naevus.io.formats import read_parquet
from naevus.runs.evidence import (
    Composition,
    attributes_figures,
    ensemble_entry,
    recipes_of,
    segmentation,
)
from naevus.runs.manifest import add, licence
from naevus.taxonomy import ATTRIBUTES
from naevus.training.onnx_graph import SampledNetwork, sample_entry
from naevus.types import Precision, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from naevus.bundles.figures import ScoreSpec, StorageCost
    from naevus.bundles.spec import Member
    from naevus.datasets.dataset import Dataset, Record

LARGEST: Final = 45_000_000
"""Bytes that the built-in bundle may have."""
CHECKED: Final = 100
"""Number of held-out images to predict again where costs of storage were measured before."""
CLOSE: Final = 0.9
"""Fraction of held-out images that a classifier must decide as in its table."""
_ORDER: Final[tuple[Task, ...]] = get_args(Task)
_PARTS: Final[dict[Task, str]] = {
    "segmentation": "segmenter",
    "classification": "classifier",
    "attributes": "attributes",
}
_INPUTS: Final[dict[Task, tuple[str, ...]]] = {
    "segmentation": ("colour_constancy",),
    "classification": ("crop_margin", "colour_constancy"),
    "attributes": ("colour_constancy",),
}
_FITTED: Final[dict[Task, tuple[str, ...]]] = {
    "segmentation": (),
    "classification": ("temperature", "offsets", "conformal", "calibrated_on", "ood", "patient"),
    "attributes": ("thresholds", "presence", "chosen_on"),
}
_TITLES: Final = {"task1": "ISIC 2018 Task 1", "task3": "HAM10000"}


class Table(NamedTuple):
    """An out-of-fold table and its name in messages."""

    name: str
    rows: pd.DataFrame

    @property
    def task(self) -> Task:
        """The task of its predictions."""
        if is_attributes_table(self.rows):
            return "attributes"
        return "segmentation" if "jaccard" in self.rows.columns else "classification"


class Part(NamedTuple):
    """The networks of one task, and their tables.

    Attributes:
        task: The task.
        bundles: The bundles that have networks for it.
        tables: Its tables: one, or one per classifier.
        fold: The fold that all of its networks held out.
    """

    task: Task
    bundles: Sequence[Bundle]
    tables: Sequence[Table]
    fold: int

    @property
    def members(self) -> list[tuple[Bundle, Member]]:
        """Its networks, with the bundle of each."""
        return [
            (each, member) for each in self.bundles for member in each.spec.members_of(self.task)
        ]

    @property
    def held_out(self) -> list[pd.DataFrame]:
        """Its tables for the images that its networks held out."""
        return [table.rows[table.rows["fold"] == self.fold] for table in self.tables]


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the bundle, and print what was checked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--oof", type=Path, nargs="+", required=True, metavar="TABLE")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=BUILTIN)
    parser.add_argument("--limit", action="append", default=[], help="a sentence for the card")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=precisions(),
        default=precisions(),
        help="measure these; by default all of this machine",
    )
    options = parser.parse_args(arguments)
    try:
        build(
            [Bundle.read(path) for path in options.bundles],
            [Table(path.name, read_parquet(path, "name an oof.parquet")) for path in options.oof],
            [load(folder) for folder in options.data],
            options.out,
            limits=options.limit,
            tried=options.precision,
            report=partial(print, flush=True),
        )
    except NaevusError as error:
        sys.exit(f"error: {error}")


def build(
    bundles: Sequence[Bundle],
    tables: Sequence[Table],
    datasets: Sequence[Dataset],
    out: Path,
    *,
    limits: Sequence[str] = (),
    tried: Sequence[Precision] = ("fp32",),
    report: Callable[[str], None],
) -> Bundle:
    """Join bundles, and write the result unless something does not fit.

    Args:
        bundles: The bundles; networks keep this order.
        tables: The out-of-fold tables.
        datasets: The images of the tables, with ground truth and the patients' data.
        out: The folder of the new bundle.
        limits: Further sentences about limits for the card.
        tried: Precisions in which the costs of new ensembles are measured.
        report: Called with lines about what was checked.

    Raises:
        BundleError: Networks do not fit together, or the result is too large.
        DataError: A table is missing, or does not fit its network.
    """
    parts = parts_of(bundles, tables)
    records = [record for dataset in datasets for record in dataset.rows()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        manifest, files = joined(bundles, parts, folder)
        manifest["limits"] += [line for line in limits if line not in manifest["limits"]]
        for part in parts:
            add(manifest, figures(part, datasets))
            lost = max(len(table.rows) for table in part.tables) - _common(part)
            if lost:
                report(f"{part.task}: {lost:,} images are not in all tables and left out")
        spec = BundleSpec.model_validate(manifest)
        draft = write_bundle(folder / "draft", spec, files)
        for part in parts:
            measured = any(each.task == part.task for each in spec.storage_costs)
            place = folder / f"check-{part.task}"
            how: Any = {"images": CHECKED} if measured else {"tried": tried}
            costs = check(part, draft, records, place, report, **how)
            if not measured:
                costs = of_computation(costs)
                manifest["storage_costs"] += costs
                manifest["recommended"].append(choose(costs, part.task, storage=costs[0].storage))
        for entry in ("storage_costs", "recommended"):
            manifest[entry].sort(key=lambda each: _ORDER.index(each.task))
        sampled = sampled_networks(BundleSpec.model_validate(manifest), draft)
        add(manifest, sample_entry(sampled, folder / SAMPLE_FILE))
        files[SAMPLE_FILE] = folder / SAMPLE_FILE
        _check_size(files, report)
        return write_bundle(out, BundleSpec.model_validate(manifest), files)


def _check_size(files: Mapping[str, Path], report: Callable[[str], None]) -> None:
    size = sum(path.stat().st_size for path in files.values())
    report(f"{len(files)} files, {size / 1e6:.1f} MB")
    if size > LARGEST:
        raise BundleError(
            f"the bundle has {size / 1e6:.1f} MB", f"at most {LARGEST / 1e6:g} MB are allowed"
        )


# What fits together.


def parts_of(bundles: Sequence[Bundle], tables: Sequence[Table]) -> list[Part]:
    """Return the networks and tables by task, after checking that they fit together.

    Raises:
        ConfigError: Classes, attributes or postprocessing differ.
        BundleError: Preprocessing, storage or the held-out folds differ.
        DataError: A table is missing, superfluous, or of other networks.
    """
    for bundle in bundles:
        files = [
            member.file for task in bundle.spec.tasks for member in bundle.spec.members_of(task)
        ]
        if len(set(files)) < len(files):
            raise BundleError(
                f"{bundle.folder}: has a network for two tasks", "join networks for one task each"
            )
    parts = []
    for task in _ORDER:
        able = [each for each in bundles if task in each.spec.tasks]
        given = [table for table in tables if table.task == task]
        if not able:
            if given:
                raise DataError(f"{given[0].name}: no bundle is for {task}", "leave it out")
            continue
        check_together(able, task)
        _check_inputs(able, task)
        _check_storage(able, task)
        part = Part(task, able, given, _fold_of(able, task))
        _check_tables(part)
        parts.append(part)
    return parts


def _check_inputs(bundles: Sequence[Bundle], task: Task) -> None:
    for name in _INPUTS[task]:
        # Only crops have a margin.
        concerned = [each for each in bundles if name != "crop_margin" or each.classifier.crops]
        for bundle in concerned[1:]:
            first, other = (each.spec.part_of(task) for each in (concerned[0], bundle))
            if getattr(first, name) != getattr(other, name):
                raise BundleError(
                    f"{concerned[0].folder} and {bundle.folder} differ in {name}",
                    "join networks with the same preprocessing",
                )


def _check_storage(bundles: Sequence[Bundle], task: Task) -> None:
    stored = {member.storage for each in bundles for member in each.spec.members_of(task)}
    if len(stored) > 1:
        raise BundleError(
            f"the networks for {task} are stored in {' and '.join(sorted(stored))}",
            "export them with one --storage: costs are measured for all together",
        )


def _fold_of(bundles: Sequence[Bundle], task: Task) -> int:
    """Return the one fold that all networks of a task held out."""
    folds = {member.folds for each in bundles for member in each.spec.members_of(task)}
    if len(folds) != 1 or len(next(iter(folds))) != 1:
        listed = ", ".join(sorted(str(list(each)) for each in folds))
        raise BundleError(
            f"the networks for {task} held out the folds {listed}",
            "join networks that held out one fold, the same for all",
        )
    return next(iter(folds))[0]


def _check_tables(part: Part) -> None:
    """Check that there is a table for each network, with the held-out fold and its training."""
    wanted = len(part.members) if part.task == "classification" else 1
    if len(part.tables) != wanted:
        raise DataError(
            f"{len(part.tables)} tables for {part.task} instead of {wanted}",
            "name one per classifier, and one for lesions and attributes each",
        )
    for table, held_out in zip(part.tables, part.held_out, strict=True):
        if held_out.empty:
            raise DataError(
                f"{table.name}: has no predictions for fold {part.fold}, which its network held "
                "out",
                "name a table with that fold",
            )
    if part.task != "classification":
        return
    for (_, member), table, held_out in zip(part.members, part.tables, part.held_out, strict=True):
        _check_trained(member, table.name, held_out)
    names = [table.name for table in part.tables]
    agreed = {"diagnosis": "diagnosis", "group_id": "group", "fold": "fold"}
    in_common([table.rows for table in part.tables], names, agreed, allow_missing=True)


def _check_trained(member: Any, name: str, held_out: pd.DataFrame) -> None:
    """Check that a table's class weights and priors are those of a network."""
    codes = taxonomy_of(held_out).codes
    for kind in ("class_weight", "class_prior"):
        values = held_out[[f"{kind}_{code}" for code in codes]].drop_duplicates().to_numpy()
        expected = np.array(getattr(member, f"{kind}es" if kind[-1] == "s" else f"{kind}s"))
        if values.shape != (1, len(expected)) or not np.allclose(values[0], expected, rtol=1e-6):
            raise DataError(
                f"{name}: its {kind.replace('_', ' ')}s are not those of the network {member.file}",
                "name the tables in the order of the networks",
            )


def _common(part: Part) -> int:
    return len(set.intersection(*(set(table.rows["image_id"]) for table in part.tables)))


# Manifest and files.


def joined(
    bundles: Sequence[Bundle], parts: Sequence[Part], folder: Path
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return the manifest of joined bundles, without figures, and the files by name."""
    files: dict[str, Path] = {}
    specs = [bundle.spec for bundle in bundles]
    learnt_from = list(dict.fromkeys(data for spec in specs for data in spec.training_data))
    learnt_from.sort(key=lambda each: _ORDER.index(each.task))
    manifest: dict[str, Any] = {
        "training_data": learnt_from,
        "licence": licence(learnt_from),
        "provenance": provenance([spec.provenance for spec in specs]),
        "limits": list(dict.fromkeys(line for spec in specs for line in spec.limits)),
        "scores": [],
        "storage_costs": [],
        "recommended": [],
    }
    for part in parts:
        leading = part.bundles[0]
        if part.task == "classification":
            leading = next((each for each in part.bundles if each.classifier.crops), leading)
        specification = leading.spec.part_of(part.task)
        assert specification is not None
        entry = specification.model_dump()
        members = []
        for number, (bundle, member) in enumerate(part.members):
            name = f"{part.task}-{number}.onnx"
            files[name] = bundle.member_path(member)
            members.append(
                member.model_dump() | {"file": name, **_own_input(bundle, member, entry)}
            )
        kept = {name: entry[name] for name in entry if name not in _FITTED[part.task]}
        manifest[_PARTS[part.task]] = {**kept, "members": members}
        if _as_measured(part, parts):
            (spec,) = (each.spec for each in part.bundles)
            costs = of_computation([each for each in spec.storage_costs if each.task == part.task])
            manifest["storage_costs"] += costs
            manifest["recommended"] += [
                choose(costs, part.task, storage=each.storage)
                for each in spec.recommended
                if each.task == part.task
            ]
        if part.task == "classification":
            place = folder / OOD_FILE
            write_ood_statistics(place, ood_statistics(part.bundles))
            files[OOD_FILE] = place
            manifest["classifier"]["ood"] = OOD_FILE
    return manifest, files


def _own_input(bundle: Bundle, member: Member, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a classifier's crop mode, if it is not that of the whole ensemble."""
    if not isinstance(member, ClassifierMember):
        return {}
    mode = bundle.classifier.mode_of(member)
    return {"crop_mode": None if mode == entry["crop_mode"] else mode}


def _as_measured(part: Part, parts: Sequence[Part]) -> bool:
    """Whether costs were measured for exactly these networks, and for crops by the same masks."""
    segmenting = [each for other in parts if other.task == "segmentation" for each in other.bundles]
    cropping = segmenting if part.task == "classification" else []
    return len({id(each) for each in [*part.bundles, *cropping]}) == 1


def ood_statistics(bundles: Iterable[Bundle]) -> list[Any]:
    """Return the OOD statistics of all classifiers.

    Raises:
        BundleError: A bundle has none.
    """
    found = []
    for bundle in bundles:
        for statistics in ood_statistics_of(bundle):
            if statistics is None:
                raise BundleError(
                    f"{bundle.folder}: has no OOD statistics",
                    "export it again with the images of its run",
                )
            found.append(statistics)
    return found


def provenance(each: Iterable[Mapping[str, str | int | float]]) -> dict[str, str | int | float]:
    """Join what bundles say about their origin; the version is the present one."""
    found: dict[str, list[str]] = {}
    for one in each:
        for name, value in one.items():
            # A value with several hashes lists them with commas; sentences stay whole.
            values = str(value).split(", ") if " " not in str(value).replace(", ", "") else [value]
            found.setdefault(name, []).extend(map(str, values))
    whole = {name: ", ".join(sorted(set(values))) for name, values in found.items()}
    return {**whole, "naevus": __version__}


def figures(part: Part, datasets: Sequence[Dataset]) -> dict[str, Any]:
    """Return the figures of a task, and what is fitted for it on the out-of-fold tables."""
    tables = [table.rows for table in part.tables]
    if part.task == "segmentation":
        return {"scores": mask_scores(tables[0], len(part.members), datasets)}
    if part.task == "attributes":
        return attributes_figures(tables[0])
    names = [table.name for table in part.tables]
    origins = tuple(f"{name} fold {part.fold}" for name in names)
    composition = Composition(origins, ((part.fold,),) * len(names))
    rows = pd.concat([each.table[each.table["diagnosis"].notna()] for each in datasets])
    by_id = rows.drop_duplicates("image_id").set_index("image_id")
    return ensemble_entry(tables, names, composition, by_id, allow_missing=True)


def mask_scores(table: pd.DataFrame, networks: int, datasets: Sequence[Dataset]) -> list[ScoreSpec]:
    """Return the scores of lesion masks by part of the data, each segmented by its own experts."""
    rows = pd.concat([each.table[["image_id", "part"]] for each in datasets])
    parts = rows.drop_duplicates("image_id").set_index("image_id")["part"]
    source = recipes_of(networks)
    each_part = table["image_id"].map(parts)
    several = len(set(each_part)) > 1
    return [
        score
        for name, chosen in table.groupby(each_part)
        for score in segmentation(chosen, source + f", {_TITLES.get(name, name)}" * several)
    ]


def sampled_networks(spec: BundleSpec, draft: Bundle) -> list[SampledNetwork]:
    """Return the networks for the sample, with the precisions recommended for them."""
    tasks = {member.file: task for task in spec.tasks for member in spec.members_of(task)}
    sampled = []
    for member in spec.members:
        task = tasks[member.file]
        best = spec.recommended_precision(task)
        computed: tuple[Precision, ...] = () if best == "fp32" else (best,)
        sampled.append(
            SampledNetwork(
                task, draft.member_path(member), None, member.input_size, member.storage, computed
            )
        )
    return sampled


# The networks as stored, on the images that they held out.


def check(
    part: Part,
    draft: Bundle,
    records: Sequence[Record],
    folder: Path,
    report: Callable[[str], None],
    *,
    images: int | None = None,
    tried: Sequence[Precision] = ("fp32",),
) -> list[StorageCost]:
    """Compare the stored networks with their out-of-fold tables, on the held-out images.

    Args:
        part: The task.
        draft: The joined bundle.
        records: The images.
        folder: Folder for temporary files.
        report: Called with a line per score.
        images: How many images to draw and to predict; None: all.
        tried: The precisions.

    Returns:
        What storage and precision cost.

    Raises:
        DataError: Images are missing, or a network's predictions are not those of its table.
    """
    folder.mkdir()
    ids = set.intersection(*(set(table["image_id"]) for table in part.held_out))
    usable = _by_id(records, part.task)
    absent = ids - usable.keys()
    if absent:
        raise DataError(
            f"{len(absent)} held-out images are in no data set, such as {min(absent)}",
            "name the data sets of all tables",
        )
    if images is not None and images < len(ids):
        ids = set(np.random.default_rng(2018).choice(sorted(ids), images, replace=False).tolist())
    found = [usable[image_id] for image_id in sorted(ids)]
    reference = [table[table["image_id"].isin(ids)] for table in part.held_out]
    costs: list[StorageCost] = []
    for precision in tried:
        if part.task == "classification":
            made = classified(part, draft, found, folder, precision)
            check_order(part, reference, made)
            known, new = (combined(each, taxonomy_of(each[0])) for each in (reference, made))
        else:
            known, new = reference[0], scored(part, draft, found, reference[0], precision)
        storage = part.members[0][1].storage
        variant = Variant(storage, precision)
        count = len(part.members)
        networks = f"{count} networks as one" if count > 1 else "one network"
        networks += f", on fold {part.fold}"
        networks += ", crops by the masks of this bundle" * (part.task == "classification")
        for cost in costs_of(part.task, variant, networks, known, new):
            costs.append(cost)
            report(_sentence(cost, part.fold))
    return costs


def of_computation(costs: Sequence[StorageCost]) -> list[StorageCost]:
    """Return the costs of a task without those of networks against themselves.

    Where a table is by the networks as stored, because no others exist, computing in fp32 gives the
    table again: what storage costs is unknown, and other precisions are compared with fp32.
    """
    as_stored = [each for each in costs if each.precision == "fp32" and each.storage != "fp32"]
    others = [each for each in costs if each not in as_stored]
    differs = any(each.changed or each.difference.value for each in as_stored)
    if differs or not as_stored or not others:
        return list(costs)
    note = ", against the same storage in fp32"
    return [each.model_copy(update={"networks": each.networks + note}) for each in others]


def _sentence(cost: StorageCost, fold: int) -> str:
    low, high = cost.difference.low, cost.difference.high
    limits = "" if low is None or high is None else f" ({100 * low:+z.2f} to {100 * high:+z.2f})"
    return (
        f"{cost.task}, {cost.storage} in {cost.precision}, fold {fold}, {cost.images:,} images: "
        f"{cost.score} {cost.reference:.4f} in the table, {100 * cost.difference.value:+z.2f} "
        f"points{limits}, {cost.changed:.1%} changed"
    )


def _by_id(records: Iterable[Record], task: Task) -> dict[str, Record]:
    """Return the images with the ground truth of a task."""
    has: dict[Task, Callable[[Record], bool]] = {
        "segmentation": lambda each: each.mask_path is not None,
        "classification": lambda each: each.diagnosis is not None,
        "attributes": lambda each: len(each.attributes) == len(ATTRIBUTES),
    }
    return {each.image_id: each for each in records if each.path is not None and has[task](each)}


def scored(
    part: Part,
    draft: Bundle,
    records: Sequence[Record],
    known: pd.DataFrame,
    precision: Precision,
) -> pd.DataFrame:
    """Return the out-of-fold table of a bundle's masks."""
    if part.task == "attributes":
        sources = [(each.image_id, _path(each), each.attributes) for each in records]
        table = oof_attributes(draft, sources, precision=precision)
    else:
        masks = [(each.image_id, _path(each), _mask(each)) for each in records]
        table = oof_scores(draft, masks, precision=precision)
    return table.merge(known[["image_id", "group_id", "fold"]], on="image_id", validate="1:1")


def classified(
    part: Part, draft: Bundle, records: Sequence[Record], folder: Path, precision: Precision
) -> list[pd.DataFrame]:
    """Return each classifier's out-of-fold table, with the crops of the bundle's own masks."""
    segmenter, masks = Segmenter(draft, precision=precision), folder / f"masks-{precision}"
    masks.mkdir()
    for each in records:
        write_png(mask_file(masks, each.image_id), segmenter.mask(read(_path(each))))
    places = {each.image_id: mask_file(masks, each.image_id) for each in records}
    files = {each.image_id: _path(each) for each in records}
    tables = []
    for number, member in enumerate(draft.classifier.members):
        alone = draft.classifier.model_copy(
            update={
                "members": (member.model_copy(update={"crop_mode": None}),),
                "crop_mode": draft.classifier.mode_of(member),
                "ood": None,
                "patient": None,
                "conformal": None,
            }
        )
        one = write_bundle(
            folder / f"{precision}-{number}",
            BundleSpec(classifier=alone),
            {member.file: draft.member_path(member)},
        )
        found = oof_logits(one, copies_for(one, files, places), sorted(files), precision=precision)
        known = part.held_out[number].drop(columns=[name for name in found if name != "image_id"])
        tables.append(found.merge(known, on="image_id", validate="1:1"))
    return tables


def check_order(
    part: Part, reference: Sequence[pd.DataFrame], made: Sequence[pd.DataFrame]
) -> None:
    """Check that each classifier predicts as its own table says, more than as any other.

    Raises:
        DataError: One does not.
    """
    names = [table.name for table in part.tables]
    same = [in_common([*reference, each], [*names, "the network"], {}) for each in made]
    for number, (*tables, mine) in enumerate(same):
        natural, _ = probabilities(mine, taxonomy_of(mine))
        others = [probabilities(table, taxonomy_of(table))[0] for table in tables]
        gaps = [float(np.abs(natural - other).mean()) for other in others]
        alike = float(np.mean(natural.argmax(axis=1) == others[number].argmax(axis=1)))
        nearest = int(np.argmin(gaps))
        if nearest != number or alike < CLOSE:
            raise DataError(
                f"classification-{number}.onnx decides {alike:.1%} of its held-out images as in "
                f"{names[number]}, and is nearest to {names[nearest]}",
                "name the table of each network, in the networks' order",
            )


def _path(record: Record) -> Path:
    assert record.path is not None
    return record.path


def _mask(record: Record) -> Path:
    assert record.mask_path is not None
    return record.mask_path


if __name__ == "__main__":
    main()
