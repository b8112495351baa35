"""``naevus predict``: lesion masks, crops and class probabilities of images."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from naevus.cli.console import errors, reporter
from naevus.cli.options import (
    COMPUTING,
    IMAGES,
    NETWORKS,
    OUTPUT,
    Bundles,
    Engine,
    ImageTypeName,
    InferenceDevice,
    OutIfGiven,
    Part,
    Precision,
    Split,
    SpreadImages,
    Threads,
    Tta,
)
from naevus.cli.summary import report_job, report_names
from naevus.errors import ConfigError
from naevus.io.parallel import BATCH
from naevus.io.stores import url_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from naevus.datasets.patient_table import PatientTable
    from naevus.datasets.selection import Selection
    from naevus.inference.abilities import Abilities
    from naevus.inference.backends import Backend
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
    limit: SpreadImages = None,
    engine: Engine = None,
    precision: Precision = None,
    device: InferenceDevice = "auto",
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
    --group-by, --metadata, or a data set that is given whole or with --split), lesions.parquet and
    lesions.csv contain one prediction per lesion, and `naevus evaluate` and `naevus report` count
    by lesion.

    Research use only, never a diagnosis.
    """
    from naevus.datasets.selection import Selection
    from naevus.inference.abilities import Abilities
    from naevus.inference.classifier import prevalence_of
    from naevus.inference.engines import streams_for
    from naevus.inference.engines.devices import check_device
    from naevus.inference.networks import find_job_bundles, open_networks
    from naevus.inference.options import OutputOptions, check_options, check_tables
    from naevus.io.parallel import cpu_count
    from naevus.runs.predictions import PredictionsFolder
    from naevus.runs.shards import Shard

    selection = Selection(
        images or [], input_list, ids, split, part, image_type, limit, lesions, group_by
    )
    outputs = OutputOptions(
        only,
        masks=not no_masks,
        crops=not no_crops,
        heatmaps=heatmaps if heatmaps_of is None else heatmaps_of,
        embeddings=embeddings,
        nested=nested,
        xlsx=xlsx,
        submission=submission,
        decision=decision,
        batch_size=batch_size,
    )
    one = None if shard is None else Shard.parse(shard)
    requested = bool(engine or precision) or device != "auto"
    check_device(device, engine)
    _check_stores(selection, out, backend, address)
    _check_diagnoses(only, prevalence=prevalence, lesions=lesions, group_by=group_by)
    patients = _metadata(metadata, mm_per_pixel, only)
    out, without = _places(selection, one) if out is None else (out, out)
    url = url_of(out)
    bundles = find_job_bundles(bundle or None, attributes=not no_attributes)
    used: Any = {"diagnose": only != "masks", "attributes": not no_attributes and only != "crops"}
    abilities = Abilities.of(bundles, **used)
    check_options(outputs, abilities, patients)
    population = None if prevalence is None else prevalence_of(prevalence, abilities.classifying)
    if heatmaps:
        _check_no_class(selection.images, abilities)
    _check_lesions(abilities, lesions=lesions, group_by=group_by)
    with _output(out, backend, address, threads, device) as (out, where):
        PredictionsFolder(out).check_free()
        selected = selection.find(out, without, reporter)
        if metadata is None and selected.metadata is not None:
            patients = _with_scale(selected.metadata, mm_per_pixel)
        if only is None and _is_challenge(selected.layouts, abilities):
            outputs = replace(outputs, submission=True)
        check_tables(outputs, len(selected.sources), abilities)
        _import_meanwhile("pandas", "naevus.inference.batch")
        networks = open_networks(
            bundles,
            **used,
            prevalence=population,
            tta=tta,
            engine=engine,
            threads=threads,
            precision=precision,
            device=device,
            streams=streams_for(len(selected.sources), threads or cpu_count()),
            choice=None if requested else PredictionsFolder(out).choice(),
            report=errors.print,
        )
        from naevus.inference import batch

        with reporter.progress("predicting images", len(selected.sources)) as move:
            result = batch.predict(
                selected.sources,
                out,
                outputs,
                segmenter=networks.segmenter,
                classifier=networks.classifier,
                metadata=patients,
                threads=threads,
                unusable=selected.found.failed,
                lesions=selected.lesions,
                shard=one,
                backend=where,
                progress=move,
            )
        report_job(result, url)
    report_names(selected.found)
    if result.failed:
        raise typer.Exit(_FINDINGS)


def _check_stores(
    selection: Selection, out: Path | None, backend: str, address: str | None
) -> None:
    """Check that options fit images and an output in remote stores."""
    found = [url for url in map(url_of, selection.images) if url is not None]
    remote = [*found, *filter(None, [out and url_of(out)])]
    if backend == "here" and remote:
        raise ConfigError(
            f"{remote[0]} is not a place on this machine",
            "use --backend ray, or mount the store, or copy the images",
        )
    if backend == "here" and address is not None:
        raise ConfigError("--address names a cluster of Ray", "add --backend ray")
    alone = selection.split is None and selection.input_list is None
    if found and not (alone and len(found) == len(selection.images)):
        raise ConfigError(
            f"{remote[0]} is in a store, and other images are not",
            "predict them one after the other, without --split and --input-list",
        )


def _output(
    out: Path, backend: str, address: str | None, threads: int | None, device: str
) -> AbstractContextManager[tuple[Path, Backend | None]]:
    """Return the folder to write to, and where to predict; with Ray, OUT may be an address."""
    if backend == "here":
        return nullcontext((out, None))
    from naevus.inference.ray import check_cpu, ray_output

    check_cpu(device)
    return ray_output(out, address, threads)


def _is_challenge(layouts: Sequence[str], abilities: Abilities) -> bool:
    """Whether all images are of ISIC 2018's splits, and its diagnoses are predicted."""
    return abilities.taxonomy == "isic2018" and set(layouts) == {"isic2018"}


def _check_lesions(abilities: Abilities, **options: Path | str | None) -> None:
    """Check that options about lesions have diagnoses to join."""
    for name in (name for name, value in options.items() if value is not None):
        if not abilities.classifying:
            raise ConfigError(
                f"--{name.replace('_', '-')} has no effect: no bundle here classifies",
                "leave it out, or add a classification bundle",
            )


def _check_no_class(images: Sequence[Path], abilities: Abilities) -> None:
    """Check that no class follows --heatmaps, which takes none: it would count as an image."""
    for path in images:
        same = [code for code in abilities.classes if code.casefold() == str(path).casefold()]
        for code in same if not path.exists() else ():
            raise ConfigError(
                f"{path} is a diagnosis, and --heatmaps takes none",
                f"write --heatmaps-of {code} for heatmaps of it",
            )


def _metadata(
    path: Path | None, mm_per_pixel: float | None, only: str | None
) -> PatientTable | None:
    """Return the metadata, with the scale if there is one for all images."""
    from naevus.inference.inputs import table_of

    table = None if path is None else table_of(path)
    if table is not None and table.has_patients:
        _check_diagnoses(only, metadata=path)
    return _with_scale(table, mm_per_pixel)


def _with_scale(table: PatientTable | None, mm_per_pixel: float | None) -> PatientTable | None:
    from naevus.inference.inputs import with_scale

    return table if mm_per_pixel is None else with_scale(table, mm_per_pixel)


def _check_diagnoses(only: str | None, **options: object) -> None:
    """Check that options about diagnoses have an effect."""
    for name, value in options.items():
        if only is not None and value is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')} has no effect: --only {only} predicts no diagnoses",
                "leave out one of them",
            )


def _import_meanwhile(*names: str) -> None:
    """Import modules in the background while graphs are compiled (which releases the GIL).

    The tables need them later; pyarrow imports pandas, if installed, for its first column.
    """
    for name in names:
        Thread(target=import_module, args=(name,)).start()


def _places(selection: Selection, shard: Shard | None) -> tuple[Path, Path]:
    """Return the default output folder, and the folder whose images are left out."""
    first, *_ = [*selection.images, *filter(None, [selection.input_list])]
    url = url_of(first)
    first = first.resolve() if url is None else Path(url.partition("://")[2])
    name = first.name if first.is_dir() else first.stem
    out = PREDICTIONS / (name if shard is None else f"{name}-{shard.number}-of-{shard.of}")
    all_outputs = PREDICTIONS.resolve()
    inside = any(all_outputs in (each.resolve() / "_").parents for each in selection.images)
    return out, out if inside else PREDICTIONS
