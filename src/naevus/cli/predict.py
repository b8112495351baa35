"""``naevus predict``: lesion masks, crops and class probabilities of images."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from naevus.cli.console import console, errors, reporter
from naevus.cli.options import (
    COMPUTING,
    IMAGES,
    NETWORKS,
    OUTPUT,
    Bundles,
    Engine,
    FirstImages,
    ImageTypeName,
    OutIfGiven,
    Part,
    Precision,
    Split,
    Threads,
    Tta,
)
from naevus.cli.summary import report_job
from naevus.errors import ConfigError
from naevus.io.parallel import BATCH
from naevus.io.stores import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from naevus.bundles.bundle import Bundle
    from naevus.cli.options import ImageType, SplitName
    from naevus.datasets.dataset import Dataset
    from naevus.datasets.patient_table import PatientTable
    from naevus.datasets.sources import Found
    from naevus.images.preprocess import ImageFiles
    from naevus.inference.backends import Backend
    from naevus.inference.classifier import Classifier
    from naevus.runs.shards import Shard

_FINDINGS = 1
PREDICTIONS = Path("predictions")
"""The default output folder."""


def predict(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGES",
            help="Images, folders of images, or data sets (with --split).",
            show_default=False,
        ),
    ] = None,
    *,
    input_list: Annotated[
        Path | None,
        typer.Option(
            "--input-list",
            help="A text file with a path per line, relative to the working directory. Blank lines "
            "and lines that begin with # are skipped; missing files are listed as failed.",
            show_default=False,
            rich_help_panel=IMAGES,
        ),
    ] = None,
    ids: Annotated[
        Literal["name", "path"],
        typer.Option(
            "--ids",
            help="Image ids: the file name (with folders where names repeat), or always the path "
            "below the working directory, so that parts of one list agree.",
            rich_help_panel=IMAGES,
        ),
    ] = "name",
    out: OutIfGiven = None,
    bundle: Bundles = None,
    tta: Tta = "none",
    prevalence: Annotated[
        Path | None,
        typer.Option(
            "--prevalence",
            help="A TOML file with the prevalence of each diagnosis in your population, such as "
            "MEL = 0.05.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    metadata: Annotated[
        Path | None,
        typer.Option(
            "--metadata",
            help="A table with age, sex or site of each image's patient, by image id: they change "
            "the odds of the diagnoses. Or with mm_per_pixel, for sizes in millimetres.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    mm_per_pixel: Annotated[
        float | None,
        typer.Option(
            "--mm-per-pixel",
            help="Millimetres on the skin per pixel of the image files: also write the sizes of "
            "lesions in millimetres. For several scales give --metadata a column mm_per_pixel.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    only: Annotated[
        Literal["masks", "crops"] | None,
        typer.Option(
            "--only", help="Write only masks or crops, no diagnoses.", rich_help_panel=OUTPUT
        ),
    ] = None,
    heatmaps: Annotated[
        bool,
        typer.Option(
            "--heatmaps",
            help="Write class activation maps of the most probable diagnosis.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    heatmaps_of: Annotated[
        str | None,
        typer.Option(
            "--heatmaps-of",
            metavar="CODE",
            help="Write class activation maps of this diagnosis, such as MEL, for all images.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    embeddings: Annotated[
        bool,
        typer.Option(
            "--embeddings",
            help="Write the networks' feature vectors.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    no_masks: Annotated[
        bool, typer.Option("--no-masks", help="Write no masks.", rich_help_panel=OUTPUT)
    ] = False,
    no_crops: Annotated[
        bool, typer.Option("--no-crops", help="Write no crops.", rich_help_panel=OUTPUT)
    ] = False,
    no_attributes: Annotated[
        bool,
        typer.Option(
            "--no-attributes",
            help="Do not segment dermoscopic attributes, which is faster.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    nested: Annotated[
        bool,
        typer.Option(
            "--nested",
            help="Write images into 256 subfolders, by a hash of the image id; for over 100,000 "
            "images.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    xlsx: Annotated[
        bool,
        typer.Option(
            "--xlsx", help="Also write predictions.xlsx, for Excel.", rich_help_panel=OUTPUT
        ),
    ] = False,
    submission: Annotated[
        bool,
        typer.Option(
            "--submission",
            help="Write submission.csv for ISIC 2018 Task 3; always written for its splits.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    decision: Annotated[
        Literal["balanced", "natural"],
        typer.Option(
            "--decision",
            help="Probabilities in submission.csv: for equally common diagnoses, or for their "
            "natural frequencies.",
            rich_help_panel=OUTPUT,
        ),
    ] = "balanced",
    lesions: Annotated[
        Path | None,
        typer.Option(
            "--lesions",
            help="A table with the columns image_id (or path) and lesion_id: also write one "
            "prediction per lesion, from all its images.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    group_by: Annotated[
        Literal["folder"] | None,
        typer.Option(
            "--group-by",
            help="The same, if the images of each folder show one lesion.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="NUMBER/SHARDS",
            help="Predict only this part of the images, such as 2/16, into a folder of its own; "
            "`naevus gather` joins the parts. Give every part the same images.",
            show_default=False,
            rich_help_panel=IMAGES,
        ),
    ] = None,
    split: Split = None,
    part: Part = None,
    image_type: ImageTypeName = "auto",
    limit: FirstImages = None,
    engine: Engine = None,
    precision: Precision = None,
    threads: Threads = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            min=1,
            help="Images per batch; it changes the last digits of probabilities.",
            rich_help_panel=COMPUTING,
        ),
    ] = BATCH,
    backend: Annotated[
        Literal["here", "ray"],
        typer.Option(
            "--backend",
            help="Predict in this process, or on Ray: IMAGES and OUT may then be s3:// addresses, "
            "and --threads (by default 1) are those of each actor.",
            rich_help_panel=COMPUTING,
        ),
    ] = "here",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="The Ray cluster; by default a local one is started.",
            show_default=False,
            rich_help_panel=COMPUTING,
        ),
    ] = None,
) -> None:
    """Segment, crop and classify images.

    Examples:
      naevus predict photo.jpg
      naevus predict photos --bundle runs/seg --bundle runs/cls --heatmaps
      naevus predict ISIC2018 --split test --part task3 --out test
      naevus predict --input-list images.txt --no-crops --nested
      naevus predict patients --group-by folder
      naevus predict photos --metadata metadata.csv
      naevus predict photos --mm-per-pixel 0.012
      naevus predict photos --shard 2/16
      naevus predict s3://bucket/photos --backend ray --out s3://bucket/out

    Prints a table and writes predictions.parquet, the same as predictions.csv for spreadsheets,
    masks and crops to OUT (by default predictions/NAME, after the first input). The same command
    resumes an interrupted job; other settings need another OUT. Unreadable images are listed in
    failed.csv, and the exit code is then 1. Links to folders are followed. If files in different
    folders have the same name, their ids include the folder. If lesions are known (from --lesions,
    --group-by, or the data set of --split), lesions.parquet and lesions.csv contain one prediction
    per lesion.

    Research use only, never a diagnosis.
    """
    from naevus.inference.engines import streams_for
    from naevus.inference.networks import open_networks
    from naevus.io.parallel import cpu_count
    from naevus.runs.predictions import PredictionsFolder
    from naevus.runs.shards import Shard

    one = None if shard is None else Shard.parse(shard)
    _check_inputs(images, input_list, split, ids)
    _check_split(split, part, image_type)
    images = images or []
    _check_stores(images, out, backend, address, whole=not (split or input_list))
    _check_files(only, no_masks=no_masks, no_crops=no_crops)
    patients = _metadata(metadata, mm_per_pixel, only)
    _check_diagnoses(only, prevalence=prevalence)
    _check_lesions(lesions, group_by, only)
    without = out
    if out is None:
        out = _place([*images, *filter(None, [input_list])], one)
        inside = any(PREDICTIONS.resolve() in (each.resolve() / "_").parents for each in images)
        without = out if inside else PREDICTIONS
    url = url_of(out)
    with _output(out, backend, address, threads) as (out, ray):
        wanted = _wanted(
            images, input_list, split, part, image_type, ids, without, out, limit, lesions, group_by
        )
        _import_meanwhile("pandas", "naevus.inference.batch")
        free = engine is None and precision is None
        networks = open_networks(
            _bundles(bundle, no_attributes=no_attributes),
            diagnose=only != "masks",
            attributes=not no_attributes and only != "crops",
            prevalence=prevalence,
            tta=tta,
            engine=engine,
            threads=threads,
            precision=precision,
            streams=streams_for(len(wanted.sources), threads or cpu_count()),
            choice=PredictionsFolder(out).choice() if free else None,
            report=errors.print,
        )
        if (lesions or group_by) and networks.classifier is None:
            option = "--lesions" if lesions else "--group-by"
            raise ConfigError(
                f"{option} has no effect: no bundle here classifies",
                "leave it out, or add a classification bundle",
            )
        challenge = only is None and _is_challenge(wanted.layouts, networks.classifier)
        from naevus.inference import batch

        with reporter.progress("predicting images", len(wanted.sources)) as move:
            result = batch.predict(
                wanted.sources,
                out,
                segmenter=networks.segmenter,
                classifier=networks.classifier,
                submission=submission or challenge,
                decision=decision,
                xlsx=xlsx,
                only=only,
                heatmaps=heatmaps if heatmaps_of is None else heatmaps_of,
                embeddings=embeddings,
                masks=not no_masks,
                crops=not no_crops,
                nested=nested,
                batch_size=batch_size,
                metadata=patients,
                threads=threads,
                unusable=wanted.found.failed,
                lesions=wanted.lesions,
                shard=one,
                backend=ray,
                progress=move,
            )
        report_job(result, url)
    _report_names(wanted.found)
    if result.failed:
        raise typer.Exit(_FINDINGS)


class _Wanted(NamedTuple):
    """The images to predict, their lesions as far as known, and the layouts they come from."""

    found: Found
    sources: list[ImageFiles]
    lesions: dict[str, str]
    layouts: list[str]


def _wanted(
    images: Sequence[Path],
    input_list: Path | None,
    split: SplitName | None,
    part: str | None,
    image_type: ImageType,
    ids: Literal["name", "path"],
    without: Path | None,
    out: Path,
    limit: int | None,
    lesions: Path | None,
    group_by: str | None,
) -> _Wanted:
    """Find the images to predict."""
    from naevus.datasets import sources as inputs
    from naevus.datasets.layouts import report_types
    from naevus.io.stores import Store

    known: dict[str, str] = {}
    layouts: list[str] = []

    def on_dataset(dataset: Dataset) -> None:
        report_types(dataset, image_type, reporter)
        known.update(dataset.lesions())
        layouts.append(dataset.layout)

    kept = inputs.kept_ids(out)
    stores = [Store.of(url) for url in map(url_of, images) if url is not None]
    if stores:
        found = inputs.remote_images(stores, kept)
    elif split is not None:
        kind = image_type
        found = inputs.Found(
            inputs.images_of_split(images, split, part, image_type=kind, on_dataset=on_dataset)
        )
    else:
        listed = [] if input_list is None else inputs.paths_in_list(input_list)
        found = inputs.find_images(images, listed=listed, without=without, kept=kept, ids=ids)
    sources = _first(found.sources, limit)
    if lesions is not None:
        known = inputs.lesions_in(lesions, sources)
    elif group_by is not None:
        known = inputs.lesions_by_folder(sources)
    return _Wanted(found, sources, known, layouts)


def _check_split(split: str | None, part: str | None, image_type: str) -> None:
    """Check that options about a split have one."""
    if part is not None and split is None:
        raise ConfigError("--part selects part of a split", "name the split with --split")
    if image_type != "auto" and split is None:
        raise ConfigError(
            "--image-type applies to the split of a data set", "name the split with --split"
        )


def _check_stores(
    images: Sequence[Path], out: Path | None, backend: str, address: str | None, *, whole: bool
) -> None:
    """Check that options fit images and an output in remote stores.

    Args:
        images: The images.
        out: The output.
        backend: Where to predict.
        address: The cluster.
        whole: Whether all images are named as arguments, without a list or a split.
    """
    found = {each: url for each in images if (url := url_of(each)) is not None}
    remote = [*found.values(), *filter(None, [out and url_of(out)])]
    if backend == "here" and remote:
        raise ConfigError(
            f"{remote[0]} is not a place on this machine",
            "use --backend ray, or mount the store, or copy the images",
        )
    if backend == "here" and address is not None:
        raise ConfigError("--address names a cluster of Ray", "add --backend ray")
    if found and (len(found) < len(images) or not whole):
        raise ConfigError(
            f"{remote[0]} is in a store, and other images are not",
            "predict them one after the other, without --split and --input-list",
        )


@contextmanager
def _output(
    out: Path, backend: str, address: str | None, threads: int | None
) -> Iterator[tuple[Path, Backend | None]]:
    """Yield the folder to write to, and where to predict; then write the tables to a store."""
    if backend == "here":
        yield out, None
        return
    from naevus.inference.ray import RayBackend, remote_folder
    from naevus.io.stores import Store

    url = url_of(out)
    store = None if url is None else Store.of(url)
    ray = RayBackend(address, threads=threads or 1, store=store)
    if store is None:
        yield out, ray
        return
    with remote_folder(store) as folder:
        yield folder, ray


def _bundles(paths: Sequence[Path] | None, *, no_attributes: bool) -> list[Bundle]:
    """Read the bundles of a job, the built-in one by default."""
    from naevus.bundles.bundle import builtin, find_bundles
    from naevus.inference.networks import require_attributes

    bundles = find_bundles(paths or [builtin()])
    if no_attributes:
        require_attributes(bundles)
    return bundles


def _is_challenge(layouts: Sequence[str], classifier: Classifier | None) -> bool:
    """Whether all images are of ISIC 2018's splits, and its diagnoses are predicted."""
    known = classifier is not None and classifier.taxonomy == "isic2018"
    return known and set(layouts) == {"isic2018"}


def _metadata(
    path: Path | None, mm_per_pixel: float | None, only: str | None
) -> PatientTable | None:
    """Return the metadata, with the scale if there is one for all images."""
    from naevus.inference.inputs import table_of, with_scale

    table = None if path is None else table_of(path)
    if table is not None and table.has_patients:
        _check_diagnoses(only, metadata=path)
    return table if mm_per_pixel is None else with_scale(table, mm_per_pixel)


def _check_diagnoses(only: str | None, **options: Path | None) -> None:
    """Check that options about diagnoses have an effect."""
    for name, value in options.items():
        if only is not None and value is not None:
            raise ConfigError(
                f"--{name} has no effect: --only {only} predicts no diagnoses",
                "leave out one of them",
            )


def _check_lesions(lesions: Path | None, group_by: str | None, only: str | None) -> None:
    """Check that options about lesions have an effect."""
    if lesions is not None and group_by is not None:
        raise ConfigError("--lesions and --group-by both name lesions", "leave out one of them")
    if only is not None and (lesions is not None or group_by is not None):
        raise ConfigError(
            f"{'--lesions' if lesions is not None else '--group-by'} has no effect: --only {only} "
            "predicts no diagnoses",
            "leave out one of them",
        )


def _first(sources: list[ImageFiles], limit: int | None) -> list[ImageFiles]:
    """Return the first images, and report if there are more."""
    if limit is not None and limit < len(sources):
        reporter.warning(f"the first {limit:,} of {len(sources):,} images are predicted", "limited")
    return sources[:limit]


def _import_meanwhile(*names: str) -> None:
    """Import modules in the background while graphs are compiled (which releases the GIL).

    The tables need them later; pyarrow imports pandas, if installed, for its first column.
    """
    for name in names:
        Thread(target=import_module, args=(name,)).start()


def _check_inputs(
    images: list[Path] | None, input_list: Path | None, split: str | None, ids: str
) -> None:
    """Check that images are named, and that options about their names have an effect."""
    if not images and input_list is None:
        raise ConfigError("no images are named", "name IMAGES, or a list with --input-list")
    if split is not None and (input_list is not None or ids != "name"):
        raise ConfigError(
            f"{'--ids' if input_list is None else '--input-list'} does not apply to the split of a "
            "data set, which has its own ids",
            "leave out one of them",
        )


def _check_files(only: str | None, *, no_masks: bool, no_crops: bool) -> None:
    """Check that options about files have an effect."""
    if only is not None and (no_masks or no_crops):
        raise ConfigError(
            f"{'--no-masks' if no_masks else '--no-crops'} does not go with --only {only}, which "
            "writes nothing else",
            "leave out one of them",
        )


def _place(inputs: Sequence[Path], shard: Shard | None) -> Path:
    """Return the default output folder, named after the first input."""
    url = url_of(inputs[0])
    first = inputs[0].resolve() if url is None else Path(url.partition("://")[2])
    name = first.name if first.is_dir() else first.stem
    return PREDICTIONS / (name if shard is None else f"{name}-{shard.number}-of-{shard.of}")


def _report_names(found: Found) -> None:
    """Report skipped files, and ids that differ from file names or need care."""
    from naevus.io.files import FORMULAS

    if found.renamed:
        console.print(
            f"{len(found.renamed)} ids include a folder, suffix or number because other files have "
            f"the same name: {_some(found.renamed)}",
            soft_wrap=True,
        )
    formulas = [each.image_id for each in found.sources if each.image_id.startswith(FORMULAS)]
    if formulas:
        console.print(
            f"{len(formulas)} ids begin with = + - or @, which spreadsheets treat as formulas: "
            f"predictions.csv has an apostrophe before them: {_some(formulas)}",
            soft_wrap=True,
        )
    if found.left_out:
        kinds = ", ".join(f"{number} {kind}" for kind, number in found.left_out.items())
        console.print(f"skipped, not images: {kinds}", soft_wrap=True)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" and so on" if len(names) > 3 else "")
