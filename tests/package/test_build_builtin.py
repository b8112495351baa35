"""`tools/build_builtin.py` joins bundles that fit together, and refuses what does not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

import naevus
from naevus.bundles.bundle import Bundle, write_bundle
from naevus.bundles.figures import StorageCost
from naevus.bundles.ood import OOD_FILE, ood_statistics_of, write_ood_statistics
from naevus.bundles.sample import read_sample
from naevus.bundles.spec import BundleSpec
from naevus.datasets.layouts import load
from naevus.errors import NaevusError
from naevus.evaluation.ood import OODStatistics
from naevus.inference.out_of_fold import copies_for, oof_attributes, oof_scores
from tests.helpers.attribute_images import write_task2
from tests.helpers.finished_runs import finished_run
from tests.helpers.onnx_graphs import (
    attributes_bundle,
    classification_bundle,
    segmentation_bundle,
)

sys.path.append(str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import build_builtin
from build_builtin import Part, Table, build

if TYPE_CHECKING:
    from naevus.datasets.dataset import Dataset


class Given(NamedTuple):
    """What fits together: bundles, tables in order, and data sets."""

    bundles: list[Bundle]
    tables: list[Table]
    datasets: list[Dataset]


def held_out(bundle: Bundle, folder: Path) -> Bundle:
    """Write a bundle again whose networks held out fold 0, with OOD statistics of classifiers."""
    spec, files = bundle.spec.model_dump(), {}
    for part in ("segmenter", "classifier", "attributes"):
        for member in spec[part]["members"] if spec[part] else []:
            member["folds"] = (0,)
            files[member["file"]] = bundle.folder / member["file"]
    if spec["classifier"]:
        spec["classifier"]["ood"] = OOD_FILE
        rng = np.random.default_rng(0)
        known, new = (rng.normal(size=(60, 8)).astype(np.float32) for _ in range(2))
        files[OOD_FILE] = folder / f"{bundle.folder.name}.npz"
        fitted = OODStatistics.fit(known, new, [str(n) for n in range(60)])
        write_ood_statistics(files[OOD_FILE], [fitted])
    return write_bundle(folder / "held-out" / bundle.folder.name, BundleSpec(**spec), files)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> Given:
    folder = tmp_path_factory.mktemp("given")
    write_task2(folder / "task2", 8)
    bundles = [
        held_out(bundle, folder)
        for bundle in (
            segmentation_bundle(folder / "contours"),
            classification_bundle(folder / "one", crop_mode="crop", explained=True),
            classification_bundle(
                folder / "other", crop_mode="crop", explained=True, size=48, seeds=(1,)
            ),
            attributes_bundle(folder / "attributes", lesion=False),
        )
    ]
    datasets = [load(synthetic), load(folder / "task2")]
    masks = [
        (each.image_id, each.path, each.attributes) for each in datasets[1].rows() if each.path
    ]
    attributes = oof_attributes(bundles[3], masks).assign(
        group_id=lambda table: table["image_id"], fold=0
    )
    runs = [
        finished_run(folder / f"runs-{name}", task, synthetic)
        for name, task in (
            ("contours", "segmentation"), ("one", "classification"), ("other", "classification"),
        )
    ]  # fmt: skip
    tables = [Table(run.folder.name, run.predictions()) for run in runs]
    # The random tables of classifiers are replaced by what the networks predict.
    part = Part("classification", bundles[1:3], tables[1:], 0)
    spec, files = build_builtin.joined(bundles, [part], folder)
    contours = bundles[0].spec.members[0].file
    draft = write_bundle(
        folder / "draft",
        BundleSpec.model_validate(spec | {"segmenter": bundles[0].spec.segmenter}),
        files | {contours: bundles[0].folder / contours},
    )
    ids = set(tables[1].rows["image_id"])
    rows = [each for each in datasets[0].rows() if each.image_id in ids and each.diagnosis]
    (folder / "masks").mkdir()
    made = build_builtin.classified(part, draft, rows, folder / "masks", "fp32")
    tables[1:] = [Table(old.name, new) for old, new in zip(tables[1:], made, strict=True)]
    return Given(bundles, [*tables, Table("attributes", attributes)], datasets)


def test_networks_of_all_tasks_are_joined_with_their_figures(given: Given, tmp_path: Path) -> None:
    lines: list[str] = []
    bundle = build(*given, tmp_path / "built", limits=["A limit."], report=lines.append)
    assert [member.file for member in bundle.spec.members] == [
        "segmentation-0.onnx", "classification-0.onnx", "classification-1.onnx",
        "attributes-0.onnx",
    ]  # fmt: skip
    for member, source in zip(bundle.spec.members, given.bundles, strict=True):
        (one,) = source.spec.members
        assert bundle.member_path(member).read_bytes() == source.member_path(one).read_bytes()
    assert len(ood_statistics_of(bundle)) == 2
    names = [score.name for score in bundle.spec.scores]
    assert "mean Jaccard index" in names
    assert "balanced accuracy, balanced decision" in names
    assert "attributes, pooled Jaccard index" in names
    assert bundle.classifier.conformal is not None
    assert "mean of the 2 networks" in str(bundle.classifier.calibrated_on)
    assert bundle.attributes.thresholds != given.bundles[3].attributes.thresholds
    assert "A limit." in bundle.spec.limits
    # The classifiers agree with their tables, which they made.
    costs = {(each.task, each.score): each for each in bundle.spec.storage_costs}
    assert costs["classification", "accuracy, natural decision"].difference.value == 0
    assert costs["attributes", "pooled Jaccard"].difference.value == 0
    assert [each.task for each in bundle.spec.recommended] == list(bundle.spec.tasks)
    assert any(line.startswith("classification, fp32 in fp32, fold 0") for line in lines)
    sizes = {member.file: member.input_size for member in bundle.spec.members}
    assert bundle.spec.sample is not None
    assert read_sample(bundle.folder / bundle.spec.sample.file, sizes).predictions.keys() == {
        *sizes
    }
    # Networks are checked on the sample when they are loaded.
    predictor = naevus.load(bundle.folder, threads=1, engine="openvino", precision="fp32")
    prediction = predictor(next(each.path for each in given.datasets[0].rows() if each.path))
    assert (
        set(prediction.attributes)
        == set(prediction.attribute_masks)
        == {*given.bundles[3].attributes.names}
    )
    assert prediction.probabilities


def test_a_second_segmenter_is_joined_and_crops_are_checked_anew(
    given: Given, tmp_path: Path
) -> None:
    known = build(*given, tmp_path / "known", report=print)
    more = held_out(segmentation_bundle(tmp_path / "more", seeds=(1,)), tmp_path)
    contours = [given.bundles[0], more]
    held = given.tables[0].rows.query("fold == 0")
    found = {each.image_id: each for each in given.datasets[0].rows()}
    sources = [
        (name, found[name].path, found[name].mask_path)
        for name in held["image_id"]
        if found[name].path and found[name].mask_path
    ]
    table = oof_scores(contours, sources).merge(held[["image_id", "group_id", "fold"]])  # type: ignore[arg-type]
    lines: list[str] = []
    tables = [Table("together", table), *given.tables[1:]]
    bundle = build([known, more], tables, given.datasets, tmp_path / "two", report=lines.append)
    files = [member.file for member in bundle.spec.members]
    assert files[:3] == ["segmentation-0.onnx", "segmentation-1.onnx", "classification-0.onnx"]
    source = next(each for each in bundle.spec.scores if each.name == "mean Jaccard index")
    assert "mean of 2 networks" in source.measured_on
    costs = {(each.task, each.score): each for each in bundle.spec.storage_costs}
    assert costs["segmentation", "Jaccard"].difference.value == 0
    # Measured again for the new crops, although the classifiers are the same.
    assert any(line.startswith("classification, fp32 in fp32, fold 0") for line in lines)
    again = build([known], given.tables, given.datasets, tmp_path / "again", report=print)
    assert again.spec.storage_costs == known.spec.storage_costs


def test_networks_are_not_compared_with_themselves() -> None:
    none, some = (
        {"value": 0.0, "low": 0.0, "high": 0.0},
        {"value": -0.01, "low": None, "high": None},
    )
    about = {"task": "segmentation", "storage": "int8", "networks": "one", "reference": 0.8}
    about |= {"images": 9, "groups": 9}
    itself, other, lost = (
        StorageCost.model_validate({**about, "precision": precision, "score": "Jaccard", **how})
        for precision, how in (
            ("fp32", {"difference": none, "changed": 0.0}),
            ("bf16", {"difference": none, "changed": 0.1}),
            ("fp32", {"difference": some, "changed": 0.0}),
        )
    )
    (kept,) = build_builtin.of_computation([itself, other])
    assert (kept.precision, kept.networks) == ("bf16", "one, against the same storage in fp32")
    assert build_builtin.of_computation([kept]) == [kept]
    for whole in ([lost, other], [itself], [itself, lost, other]):
        assert build_builtin.of_computation(whole) == whole


def changed(bundle: Bundle, folder: Path, part: str, **values: Any) -> Bundle:
    """Write a bundle again with other values of a part."""
    spec = bundle.spec.model_dump()
    spec[part] |= values
    files = {name: bundle.folder / name for name in spec["files"] if name != "MODEL_CARD.md"}
    return write_bundle(folder / f"changed-{part}", BundleSpec.model_validate(spec), files)


def _swapped(given: Given, _: Path) -> Given:
    first, second, *rest = given.tables[1:]
    return given._replace(tables=[given.tables[0], second, first, *rest])


def _no_table(given: Given, _: Path) -> Given:
    return given._replace(tables=given.tables[:2])


def _table_of_nothing(given: Given, _: Path) -> Given:
    return given._replace(bundles=given.bundles[:3])


def _other_weights(given: Given, _: Path) -> Given:
    name, rows = given.tables[2]
    other = Table(name, rows.assign(class_weight_MEL=2 * rows["class_weight_MEL"]))
    return given._replace(tables=[*given.tables[:2], other, given.tables[3]])


def _other_fold(given: Given, _: Path) -> Given:
    name, rows = given.tables[2]
    return given._replace(
        tables=[*given.tables[:2], Table(name, rows.assign(fold=1)), given.tables[3]]
    )


def _other_groups(given: Given, _: Path) -> Given:
    name, rows = given.tables[2]
    other = Table(name, rows.assign(group_id="one"))
    return given._replace(tables=[*given.tables[:2], other, given.tables[3]])


def _other_crops(given: Given, folder: Path) -> Given:
    other = changed(given.bundles[2], folder, "classifier", crop_margin=0.3)
    return given._replace(bundles=[*given.bundles[:2], other, given.bundles[3]])


def _other_held_out(given: Given, folder: Path) -> Given:
    members = [
        member.model_dump() | {"folds": (0, 1)} for member in given.bundles[2].classifier.members
    ]
    other = changed(given.bundles[2], folder, "classifier", members=members)
    return given._replace(bundles=[*given.bundles[:2], other, given.bundles[3]])


def _other_storage(given: Given, folder: Path) -> Given:
    members = [
        member.model_dump() | {"storage": "fp16"} for member in given.bundles[2].classifier.members
    ]
    other = changed(given.bundles[2], folder, "classifier", members=members)
    return given._replace(bundles=[*given.bundles[:2], other, given.bundles[3]])


def _no_statistics(given: Given, folder: Path) -> Given:
    other = changed(given.bundles[2], folder, "classifier", ood=None)
    return given._replace(bundles=[*given.bundles[:2], other, given.bundles[3]])


def _two_tasks(given: Given, folder: Path) -> Given:
    both = attributes_bundle(folder / "both", lesion=True)
    return given._replace(bundles=[*given.bundles[:3], both])


def _no_images(given: Given, _: Path) -> Given:
    return given._replace(datasets=given.datasets[1:])


def test_a_classifier_of_whole_images_keeps_its_input(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = classification_bundle(
        tmp_path / "whole", crop_mode="full", crop_margin=0.3, explained=True, seeds=(2,)
    )
    bundles = [held_out(whole, tmp_path), *given.bundles[:3]]
    classifying = [bundles[0], *bundles[2:]]
    parts = [Part("segmentation", [bundles[1]], given.tables[:1], 0)]
    tables = [given.tables[1], *given.tables[1:3]]
    build_builtin._check_inputs(classifying, "classification")  # only crops have a margin
    parts.append(Part("classification", classifying, tables, 0))
    manifest, files = build_builtin.joined(bundles, parts, tmp_path)
    draft = write_bundle(tmp_path / "draft", BundleSpec.model_validate(manifest), files)
    assert (draft.classifier.crop_mode, draft.classifier.crop_margin) == ("crop", 0.15)
    assert [each.crop_mode for each in draft.classifier.members] == ["full", None, None]
    seen = []

    def copies(bundle: Bundle, *rest: Any) -> Any:
        seen.append(bundle.classifier.crop_modes)
        return copies_for(bundle, *rest)

    monkeypatch.setattr(build_builtin, "copies_for", copies)
    rows = [each for each in given.datasets[0].rows() if each.diagnosis][:4]
    (tmp_path / "check").mkdir()
    build_builtin.classified(parts[1], draft, rows, tmp_path / "check", "fp32")
    assert seen == [("full",), ("crop",), ("crop",)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_swapped, "is nearest to"),
        (_no_table, "1 tables for classification instead of 2"),
        (_table_of_nothing, "no bundle is for attributes"),
        (_other_weights, "class weights are not those of the network"),
        (_other_fold, "has no predictions for fold 0"),
        (_other_groups, "have another group"),
        (_other_crops, "differ in crop_margin"),
        (_other_held_out, r"held out the folds \[0, 1\], \[0\]"),
        (_other_storage, r"are stored in fp\d\d and \w+; export them with one --storage"),
        (_no_statistics, "has no OOD statistics"),
        (_two_tasks, "has a network for two tasks"),
        (_no_images, "held-out images are in no data set"),
    ],
)
def test_what_does_not_fit_is_refused(
    given: Given, tmp_path: Path, change: Any, problem: str
) -> None:
    unfit: Given = change(given, tmp_path)
    with pytest.raises(NaevusError, match=problem):
        build(*unfit, tmp_path / "built", report=print)
    assert not (tmp_path / "built").exists()


def test_a_bundle_too_large_is_refused(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_builtin, "LARGEST", 1000)
    with pytest.raises(NaevusError, match="MB"):
        build(*given, tmp_path / "built", report=print)
    assert not (tmp_path / "built").exists()


def test_hashes_are_joined_and_sentences_stay_whole() -> None:
    each = [{"recipe": "b, a", "note": "made from 7 bits, once"}, {"recipe": "c", "naevus": "0"}]
    assert build_builtin.provenance(each) == {
        "recipe": "a, b, c",
        "note": "made from 7 bits, once",
        "naevus": naevus.__version__,
    }
