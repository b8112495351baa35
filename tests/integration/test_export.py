"""Runs are exported as one bundle: joined, verified, in one file, without traces of the machine."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import naevus
from naevus.bundles.bundle import Bundle
from naevus.bundles.ood import OOD_FILE, ood_statistics_of
from naevus.bundles.spec import ConformalSpec
from naevus.datasets.cache import ImageCache
from naevus.datasets.folds import Folds
from naevus.datasets.sources import stack_images
from naevus.errors import BundleError, DataError, RunError
from naevus.evaluation.conformal import Conformal
from naevus.evaluation.out_of_fold import probabilities
from naevus.evaluation.scaling import fit_scaling, scaled
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.export import export, graphs, members
from naevus.export.export import Checked, ExportCallbacks, ExportOptions, export_runs
from naevus.export.graphs import Agreement, GraphOutput, compare, network_outputs, require
from naevus.export.members import images_of, open_member
from naevus.images.preprocess import ImageFiles, InputSpec
from naevus.images.read import read, write_png
from naevus.inference.classifier import Classifier
from naevus.inference.engines import open_engine
from naevus.inference.out_of_fold import oof_logits
from naevus.inference.segmenter import Segmenter
from naevus.runs import evidence
from naevus.runs.evidence import Composition, classification_entry
from naevus.runs.images import select_images
from naevus.runs.manifest import about, training_data
from naevus.runs.recipe import to_toml
from naevus.runs.run import Run
from naevus.taxonomy import ISIC2018
from naevus.training.data import TrainingData
from naevus.training.onnx_graph import export_onnx
from tests.helpers import ROOT
from tests.helpers.finished_runs import CLASS_PRIORS, WEIGHTS_OF_CLASSES, finished_run
from tests.helpers.onnx_graphs import segmentation_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from naevus.export.members import TrainedMember

pytestmark = pytest.mark.slow

FEW = ExportOptions(checked=6, calibrated=4)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _exported_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Export each network once: it takes seconds and always gives the same bytes."""
    folder = tmp_path_factory.mktemp("exported")

    def export(network: Any, path: Path, *, input_size: int) -> None:
        digest = hashlib.sha256(str(input_size).encode())
        for value in network.state_dict().values():
            digest.update(value.numpy().tobytes())
        kept = folder / digest.hexdigest()
        if not kept.exists():
            export_onnx(network, kept, input_size=input_size)
        shutil.copyfile(kept, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "export_onnx", export)
        yield


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "contours": finished_run(folder / "contours", "segmentation", synthetic, (0,)),
        "answers": finished_run(folder / "answers", "classification", synthetic, (0, 2)),
        "cropped": finished_run(
            folder / "cropped",
            "classification",
            synthetic,
            (0, 2),
            data={"parts": ["task3"], "crop_mode": "crop"},
        ),
        "blanked": finished_run(
            folder / "blanked",
            "classification",
            synthetic,
            data={"parts": ["task3"], "crop_mode": "blank", "crop_margin": 0.3},
        ),
        "unfinished": finished_run(folder / "unfinished", "classification", synthetic, ()),
    }


class Joined:
    """Both tasks in one bundle, and the printed output."""

    def __init__(self, runs: dict[str, Run], folder: Path) -> None:
        self.description: list[Checked] = []
        self.folder = folder / "bundle"
        both = [runs["answers"], runs["contours"]]
        self.bundle = export_runs(both, self.folder, FEW, ExportCallbacks(self.description.append))


@pytest.fixture(scope="module")
def joined(runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Joined:
    return Joined(runs, tmp_path_factory.mktemp("joined"))


def test_all_finished_folds_of_both_tasks_are_joined(joined: Joined) -> None:
    spec = joined.bundle.spec
    assert spec.tasks == ("segmentation", "classification")
    assert [member.folds for member in spec.members] == [(0,), (0,), (2,)]
    assert [member.file for member in spec.members] == [
        "segmentation-0.onnx",
        "classification-0.onnx",
        "classification-1.onnx",
    ]
    assert joined.bundle.classifier.members[1].class_weights == WEIGHTS_OF_CLASSES
    assert joined.bundle.classifier.members[1].class_priors == CLASS_PRIORS
    assert joined.bundle.classifier.taxonomy == "isic2018"
    assert {member.architecture for member in joined.bundle.classifier.members} == {"test_resnet"}


def test_cam_offsets_are_measured_on_held_out_images(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shown = runs["answers"], []

    def measured(_graph: Path, pixels: Any) -> tuple[float, float]:
        shown.append(pixels)
        return 0.25, -0.5

    monkeypatch.setattr(export, "cam_offset", measured)
    both = [run, runs["contours"]]
    bundle = export_runs(both, tmp_path / "b", FEW, ExportCallbacks(lambda _checked: None))
    assert [member.cam_offset for member in bundle.classifier.members] == [(0.25, -0.5)] * 2
    for pixels, fold in zip(shown, (0, 2), strict=True):
        never = stack_images(images_of(run), run.folds.held_out(fold), 32)
        assert all((never == one).all(axis=(1, 2, 3)).any() for one in pixels)


def test_its_graphs_are_the_stored_weights(joined: Joined, runs: dict[str, Run]) -> None:
    run = runs["answers"]
    pixels = stack_images(images_of(run), run.folds.held_out(2)[:5], 32)
    with torch.inference_mode():
        expected = open_member(run, 2).network(torch.from_numpy(pixels)).numpy()
    path = joined.bundle.member_path(joined.bundle.classifier.members[1])
    found = open_engine(path, threads=1).run(pixels)["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert Classifier(joined.bundle).classes == joined.bundle.classifier.classes
    assert Segmenter(joined.bundle).size == 32


def test_every_member_is_checked_on_held_out_images(joined: Joined) -> None:
    assert [each.file for each in joined.description] == [
        m.file for m in joined.bundle.spec.members
    ]
    for reported in joined.description:
        assert reported.held_out
        assert reported.stored_agreement is None
        assert reported.graph.holds
        assert reported.graph.images == 6
        assert reported.graph.largest < 1e-4


def test_calibration_uses_out_of_fold_predictions(joined: Joined, runs: dict[str, Run]) -> None:
    spec, table = joined.bundle.classifier, runs["answers"].predictions()
    natural, _ = probabilities(table, ISIC2018)
    truth = [ISIC2018.index(code) for code in table["diagnosis"]]
    scaling = fit_scaling(natural, truth)
    assert (spec.temperature, spec.offsets) == scaling
    assert spec.temperature != 1
    conformal = Conformal.fit(
        scaled(natural, scaling), truth, table["group_id"].tolist(), ISIC2018.codes
    )
    assert spec.conformal is not None
    assert spec.conformal.model_dump() == ConformalSpec(**conformal.to_dict()).model_dump()
    assert spec.calibrated_on is not None
    assert "held out in folds 0, 2" in spec.calibrated_on
    assert (
        "the bundle is an ensemble of 2 networks, and its best temperature may differ"
        in spec.calibrated_on
    )


def test_scores_are_of_the_recipe_out_of_fold(joined: Joined, runs: dict[str, Run]) -> None:
    spec = joined.bundle.spec
    scores = {score.name: score for score in spec.scores}
    intervals = SegmentationEvaluation.of(runs["contours"].predictions()).metrics
    mean = scores["mean Jaccard index"]
    assert (mean.value, mean.low, mean.high) == intervals["jaccard"]
    assert "balanced accuracy, balanced decision" in scores
    assert all(
        score.measured_on.startswith("out-of-fold predictions of the recipe: ")
        for score in spec.scores
    )
    assert [one.code for one in spec.by_class] == list(ISIC2018.codes)
    assert {one.attribute for one in spec.subgroups} == {"sex", "age"}
    assert spec.storage_costs == ()


def test_calibration_replaces_the_out_of_fold_predictions(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    run = runs["answers"]
    table = run.predictions()
    table = table[table["fold"] == 0].drop(columns="fold")
    table[[f"logit_{code}" for code in ISIC2018.codes]] *= 3
    options = replace(FEW, calibration=table, folds=(0,))
    bundle = export_runs([run], tmp_path / "own", options, ExportCallbacks(lambda _: None))
    natural, _ = probabilities(table, ISIC2018)
    truth = [ISIC2018.index(code) for code in table["diagnosis"]]
    assert bundle.classifier.temperature == pytest.approx(fit_scaling(natural, truth).temperature)
    assert all(
        score.measured_on.startswith("predictions of exactly these members")
        for score in bundle.spec.scores
    )
    assert "predictions of exactly these members" in str(bundle.classifier.calibrated_on)


def test_an_average_is_scored_by_its_own_predictions(
    runs: dict[str, Run], synthetic: Path, tmp_path: Path
) -> None:
    seeds = [
        finished_run(tmp_path / str(seed), "classification", synthetic, (0,), seed=seed)
        for seed in (1, 2)
    ]
    options = replace(FEW, average=True)
    bundle = export_runs(seeds, tmp_path / "mean", options, ExportCallbacks(lambda _: None))
    images = images_of(seeds[0])
    table = seeds[0].predictions().drop(columns="fold")
    logits = oof_logits(bundle, images, table["image_id"].tolist())
    table[logits.columns[1:]] = logits[logits.columns[1:]]
    natural, _ = probabilities(table, ISIC2018)
    truth = [ISIC2018.index(code) for code in table["diagnosis"]]
    assert bundle.classifier.temperature == pytest.approx(fit_scaling(natural, truth).temperature)
    assert all(
        score.measured_on.startswith("predictions of exactly these members")
        for score in bundle.spec.scores
    )


def test_the_bundle_states_which_networks_it_was_calibrated_on(
    runs: dict[str, Run],
) -> None:
    run = runs["answers"]

    def source(*folds: int, averaged: bool = False) -> str:
        origins = tuple(f"answers fold {fold}" for fold in folds)
        entry = classification_entry([run], Composition(origins, (folds,), averaged), None)
        return str(entry["classifier"]["calibrated_on"])

    assert "the bundle is one network, and its best" in source(0)
    assert "with the averaged weights of 2 networks, and its best" in source(0, 2, averaged=True)
    table = run.predictions()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "predictions", lambda _: table[table["fold"] == 0])
        assert source(0).endswith("as in this bundle")


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (lambda table: table.drop(columns="diagnosis"), "no column diagnosis"),
        (
            lambda table: table[table["fold"] == 0].drop(columns="logit_DF"),
            "other classes than the runs",
        ),
        (lambda table: table.assign(image_id=table["image_id"] + "x"), "is not in the folds of"),
        (lambda table: table, "a network of the bundle was trained on"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    runs: dict[str, Run], change: Any, output: str, tmp_path: Path
) -> None:
    options = replace(FEW, calibration=change(runs["answers"].predictions()))
    with pytest.raises(DataError, match=output):
        export_runs([runs["answers"]], tmp_path / "out", options, ExportCallbacks(lambda _: None))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("composed", "given", "trained"),
    [
        pytest.param(((0, 2),), ["0"], ["0"], id="the network of another fold"),
        pytest.param(((1,),), ["1", "0"], ["0"], id="some images"),
        pytest.param(((0,), (2,)), ["0"], ["0"], id="the network of another run"),
        pytest.param(((0,),), ["train"], ["train"], id="images that no fold holds out"),
        pytest.param(((0,), (0,)), ["0"], [], id="two runs of one fold"),
        pytest.param(((0, 2), (1,)), ["test"], [], id="test images"),
        pytest.param(((0,),), ["0", "test"], [], id="held-out and test images"),
    ],
)
def test_images_of_a_network_s_training_calibrate_nothing(
    runs: dict[str, Run],
    composed: Any,
    given: list[str],
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictions = runs["answers"].predictions()
    monkeypatch.setattr(Run, "predictions", lambda _: predictions)
    monkeypatch.setattr(evidence, "_classification_entry", lambda *_: {"scores": []})
    rows = runs["answers"].folds.table.copy()
    rows.loc[rows.index % 5 == 0, "fold"] = "test"
    rows.loc[rows.index % 5 == 1, "fold"] = "train"
    run = replace(runs["answers"], folds=Folds(rows))
    logits = dict.fromkeys((f"logit_{code}" for code in ISIC2018.codes), 0.0)
    table = rows[rows["fold"].isin(given)].drop(columns="fold").assign(diagnosis="NV", **logits)
    composition = Composition(tuple("network" for _ in composed), composed)
    if not trained:
        assert classification_entry([run] * len(composed), composition, None, table)
        return
    images = f"trained on {rows['fold'].isin(trained).sum()} of the {len(table)} images"
    with pytest.raises(DataError, match=images):
        classification_entry([run] * len(composed), composition, None, table)


def test_calibrating_a_segmenter_is_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    options = replace(FEW, calibration=runs["answers"].predictions())
    with pytest.raises(RunError, match="--calibration needs a classification run"):
        export_runs([runs["contours"]], tmp_path / "out", options, ExportCallbacks(lambda _: None))


def test_the_card_shows_data_licence_and_limits(joined: Joined) -> None:
    card = (joined.bundle.folder / "MODEL_CARD.md").read_text()
    for words in (
        "classification: synthetic images (`naevus data synthetic`), ",
        "licence: unknown",
        "are square",
        "never makes a diagnosis",
    ):
        assert words in card
    assert [data.task for data in joined.bundle.spec.training_data] == [
        "classification",
        "segmentation",
    ]


def test_images_of_both_tasks_are_named_for_both(runs: dict[str, Run]) -> None:
    """If every image has a mask and a diagnosis, both tasks have the same fingerprint."""
    print_of = {"fingerprint": "the same", "layout": "folder", "images": 5}
    reported = training_data(
        replace(runs[name], inputs=print_of) for name in ("answers", "contours", "answers")
    )
    assert [each.task for each in reported] == ["classification", "segmentation"]


@pytest.mark.parametrize(
    ("first", "last", "name", "licence"),
    [
        ("ISIC_0024306", "ISIC_0034320", "HAM10000 (", "CC BY-NC 4.0"),
        ("ISIC_9100000", "ISIC_9100001", "synthetic images (", None),
        ("ISIC_0034321", "ISIC_0073254", "images in the layout isic2018", None),
        ("ISIC_0024307", "mine-1", "HAM10000 (", "CC BY-NC 4.0"),
        ("ISIC_00243070", "mine-1", "images in the layout isic2018", None),
    ],
)
def test_data_are_named_by_their_ids(
    runs: dict[str, Run], first: str, last: str, name: str, licence: str | None
) -> None:
    run = runs["answers"]
    table = run.folds.table.head(2).assign(image_id=[first, last])
    (found,) = training_data([replace(run, folds=Folds(table))])
    assert found.name.startswith(name)
    assert found.name.endswith(" and images in the layout isic2018") == (first == "ISIC_0024307")
    assert found.licence == licence


def test_no_file_names_the_machine_its_user_or_the_time(joined: Joined, runs: Any) -> None:
    names = [str(ROOT), str(joined.folder.parent), str(Path.home()), "/tmp/"]
    names += [str(run.folder) for run in runs.values()]
    names += [str(runs["answers"].inputs["data"]), str(Path(torch.__file__).parents[1])]
    user, host = getpass.getuser(), socket.gethostname()
    files = list(joined.folder.iterdir())
    assert len(files) == 7  # three graphs, what they learnt from, a sample, the card, bundle.json
    for path in files:
        content = path.read_bytes()
        for name in names:
            assert name.encode() not in content, (path.name, name)
        for word in (user, host):
            alone = rb"(?<![A-Za-z0-9_])" + re.escape(word.encode()) + rb"(?![A-Za-z0-9_])"
            if len(word) > 3:
                assert not re.search(alone, content), (path.name, word)
        assert not re.search(rb"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b", content), path.name
        for trace in (b".py", b"site-packages", b"Traceback", b"stack_trace"):
            assert trace not in content, (path.name, trace)


def test_classifiers_carry_ood_statistics_of_their_training_images(joined: Joined) -> None:
    spec = joined.bundle.spec
    assert spec.classifier is not None
    assert spec.classifier.ood == OOD_FILE
    assert OOD_FILE in spec.files
    known = ood_statistics_of(joined.bundle)
    assert len(known) == len(spec.classifier.members)
    assert all(reference is not None and reference.spread > 0 for reference in known)


def test_the_same_runs_give_the_same_file(runs: dict[str, Run], tmp_path: Path) -> None:
    files = [tmp_path / "one.naevus", tmp_path / "two.naevus"]
    for file in files:
        export_runs([runs["contours"]], file, FEW, ExportCallbacks(lambda _: None))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert Bundle.read(files[0]).spec.segmenter is not None


def test_fp16_members_state_their_storage_and_differences(
    runs: dict[str, Run], tmp_path: Path, joined: Joined
) -> None:
    reported: list[Checked] = []
    options = replace(FEW, folds=(0,), storage="fp16")
    bundle = export_runs(
        [runs["answers"]], tmp_path / "half", options, ExportCallbacks(reported.append)
    )
    assert [member.storage for member in bundle.spec.members] == ["fp16"]
    (only,) = reported
    assert only.stored_agreement is not None
    assert 0 < only.stored_agreement.largest < 0.01
    whole = joined.bundle.member_path(joined.bundle.classifier.members[0])
    assert only.size == bundle.member_path(bundle.classifier.members[0]).stat().st_size
    assert only.size < 0.6 * whole.stat().st_size


def test_int8_is_calibrated_on_other_images_than_it_is_checked_on(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    given: list[int] = []

    def noting(images: Any, ids: Any, size: int) -> Any:
        asked.append(list(ids))
        return stack_images(images, ids, size)

    def quantise(model: Any, pixels: Any) -> Any:
        given.append(len(pixels))
        return model

    for module in (export, members, graphs):
        monkeypatch.setattr(module, "stack_images", noting)
    monkeypatch.setattr(graphs, "to_int8", quantise)
    run = runs["answers"]
    options = replace(FEW, folds=(2,), storage="int8")
    bundle = export_runs([run], tmp_path / "small", options, ExportCallbacks(lambda _: None))
    assert [member.storage for member in bundle.spec.members] == ["int8"]
    checked, calibrated = asked
    groups = run.folds.table.set_index("image_id")["group_id"]
    assert given == [4]
    assert set(checked) <= set(run.folds.held_out(2))
    assert set(calibrated) <= set(run.folds.training(2))
    assert not set(groups[checked]) & set(groups[calibrated])


def test_folds_of_a_run_are_averaged_into_one_member(runs: dict[str, Run], tmp_path: Path) -> None:
    reported: list[Checked] = []
    options = replace(FEW, average=True)
    bundle = export_runs(
        [runs["answers"]], tmp_path / "mean", options, ExportCallbacks(reported.append)
    )
    assert [member.folds for member in bundle.spec.members] == [()]
    assert [(each.origin, each.held_out) for each in reported] == [
        ("answers fold 0 + answers fold 2", False)
    ]


def test_a_graph_that_differs_from_its_network_is_never_written(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(member: TrainedMember, path: Path, pixels: Any) -> GraphOutput:
        right = network_outputs(member, pixels)
        return right._replace(probabilities=right.probabilities + 0.0021)

    monkeypatch.setattr(export, "graph_outputs", wrong)
    reported: list[Checked] = []
    out = tmp_path / "out.naevus"
    with pytest.raises(BundleError, match=r"contours fold 0: its graph differs .* nothing was"):
        export_runs([runs["contours"]], out, FEW, ExportCallbacks(reported.append))
    assert len(reported) == 1
    assert not out.exists()


def test_the_limits_of_agreement_are_enforced() -> None:
    ids = np.arange(2000)
    right = GraphOutput(np.full((2000, 2), 0.5), ids)
    assert compare(right, right) == Agreement(2000, 0, 0, 1)
    for other, holds in (
        (right._replace(probabilities=right.probabilities + 0.0019), True),
        (right._replace(probabilities=right.probabilities + 0.0021), False),
        (right._replace(probabilities=np.full((2000, 2), np.nan)), False),
        (right._replace(decisions=np.where(ids < 2, -1, ids)), True),
        (right._replace(decisions=np.where(ids < 3, -1, ids)), False),
    ):
        agreement = compare(right, other)
        assert agreement.holds is holds
        if not holds:
            with pytest.raises(BundleError, match="one fold"):
                require(agreement, "one fold")


def test_classifiers_that_see_images_differently_share_a_bundle(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    def export(*names: str) -> Bundle:
        place = tmp_path / "-".join(names)
        named = [runs[name] for name in names]
        return export_runs(named, place, replace(FEW, folds=(0,)), ExportCallbacks(lambda _: None))

    joined = export("answers", "cropped")
    assert joined.classifier.crop_mode == "crop"
    assert [each.crop_mode for each in joined.classifier.members] == ["full", None]
    card = (joined.folder / "MODEL_CARD.md").read_text()
    assert (
        "Input of the classifier: the centre square (`full`) for `classification-0.onnx`; a square "
        "around the lesion (`crop`) for `classification-1.onnx`."
    ) in card
    contours = segmentation_bundle(tmp_path / "contours").folder
    image = np.random.default_rng(3).integers(150, 250, (64, 96, 3), dtype=np.uint8)
    image[20:40, 30:60] //= 3
    crops, whole = export("cropped").folder, export("answers").folder
    found = [
        naevus.load([*bundles, contours], threads=1)(image)
        for bundles in ([joined.folder], [whole, crops], [whole], [crops])
    ]
    assert [each.crop_mode for each in found] == ["crop", "crop", "full", "crop"]
    both, apart, square, crop = (np.asarray(each.members) for each in found)
    assert both == pytest.approx(apart, abs=1e-6)
    assert both == pytest.approx(np.concatenate([square, crop]), abs=1e-6)
    image[:6] = 255  # outside the crop
    changed = naevus.load([joined.folder, contours], threads=1)(image).members
    assert changed is not None
    assert changed[0] != pytest.approx(square[0], abs=1e-6)
    assert changed[1] == pytest.approx(crop[0], abs=1e-6)


@pytest.mark.parametrize(
    ("named", "options", "output"),
    [
        (["unfinished"], FEW, "no fold is finished"),
        (["answers"], replace(FEW, folds=(1,)), "fold 1 is not finished"),
        (["cropped", "answers", "blanked"], FEW, r"differ in data\.crop_margin"),
        (["contours"], replace(FEW, average=True), "averaging needs two or more"),
    ],
)
def test_runs_that_cannot_be_joined_are_refused(
    runs: dict[str, Run], tmp_path: Path, named: list[str], options: ExportOptions, output: str
) -> None:
    with pytest.raises(RunError, match=output):
        export_runs(
            [runs[name] for name in named],
            tmp_path / "out",
            options,
            ExportCallbacks(lambda _: None),
        )
    assert not (tmp_path / "out").exists()


def test_runs_over_other_folds_or_data_are_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["answers"]
    table = run.folds.table.copy()
    table["fold"] = table["fold"].map({"0": "1", "1": "0", "2": "2"}).astype("string")
    others = {
        "folds": replace(run, folds=replace(run.folds, table=table)),
        "data": replace(run, inputs=run.inputs | {"fingerprint": "other"}),
    }
    for what, other in others.items():
        with pytest.raises(RunError, match=f"different {what}"):
            export_runs([run, other], tmp_path / "out", FEW, ExportCallbacks(lambda _: None))


def test_other_data_is_refused(runs: dict[str, Run], tmp_path: Path, synthetic: Path) -> None:
    shutil.copytree(synthetic, tmp_path / "moved")
    run = runs["contours"]
    assert run.folds.held_out(0)[0] in images_of(run, tmp_path / "moved")
    next((tmp_path / "moved" / "ISIC2018_Task1-2_Training_Input").glob("*.jpg")).unlink()
    with pytest.raises(DataError, match="is not the data that"):
        images_of(run, tmp_path / "moved")
    with pytest.raises(DataError, match="no such folder"):
        images_of(run, tmp_path / "absent")


def _mirrored(sources: list[ImageFiles], folder: Path) -> list[ImageFiles]:
    for source in sources:
        write_png(folder / source.path.name, read(source.path)[:, ::-1])
    return [source._replace(path=folder / source.path.name) for source in sources]


def test_without_the_data_set_its_cache_is_used(
    runs: dict[str, Run], tmp_path: Path, synthetic: Path
) -> None:
    shutil.copytree(runs["contours"].folder, tmp_path / "run")
    inputs = tmp_path / "run" / "inputs.json"
    inputs.write_text(json.dumps(json.loads(inputs.read_text()) | {"data": "gone"}))
    run = Run.open(tmp_path / "run")
    with pytest.raises(DataError, match="neither in their original folder nor in the cache"):
        images_of(run)
    from naevus.datasets.layouts import load

    training_data = TrainingData(select_images(load(synthetic), run.recipe), tmp_path)
    caches = {
        name: ImageCache.build(sources, InputSpec("squash", size), tmp_path / "cache" / name)
        for name, sources, size in (
            ("a", training_data.sources(), 24),
            (
                "b",
                _mirrored(training_data.sources(), tmp_path / "copies"),
                40,
            ),  # as large, other copies
            ("c", training_data.sources(), 40),
        )
    }
    run.hold_to({"images": caches["c"].key}, {"images": caches["c"].contents})
    ids = run.folds.held_out(0)[:3]
    cached, decoded = (images_of(each) for each in (run, runs["contours"]))
    assert isinstance(cached, ImageCache)
    np.testing.assert_array_equal(stack_images(cached, ids, 32), stack_images(decoded, ids, 32))


def test_an_existing_folder_is_not_overwritten(runs: dict[str, Run], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is not a bundle"):
        export_runs([runs["contours"]], tmp_path / "thesis", FEW, ExportCallbacks(lambda _: None))
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_the_command_prints_what_was_checked(runs: dict[str, Run], tmp_path: Path) -> None:
    import typer

    from naevus.cli.export import export

    app = typer.Typer()
    app.command()(export)
    out = tmp_path / "lesions.naevus"
    words = [str(runs["contours"].folder), "--out", str(out), "--storage", "fp16"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "fp32 graph" in done.output
    assert "held out" in done.output
    assert "mean Jaccard index" in done.output
    assert "1: out-of-fold predictions of the recipe" in done.output
    assert Bundle.read(out).segmenter.members[0].storage == "fp16"


@pytest.mark.parametrize("limit", [0, 40])
def test_networks_of_a_trial_are_called_so(
    limit: int, runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from naevus.cli.main import app

    run = tmp_path / "run"
    shutil.copytree(runs["contours"].folder, run)
    recipe = Run.open(run).recipe
    limited = recipe.data.model_copy(update={"limit": limit})
    (run / "run.toml").write_text(to_toml(recipe.model_copy(update={"data": limited})))
    stopped = BundleError("stopped", "go on")
    monkeypatch.setattr("naevus.export.export.export_runs", Mock(side_effect=stopped))
    done = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "out"), "--force"])
    assert done.exit_code == 2
    notes = [line for line in done.stderr.splitlines() if "for a trial" in line]
    what = "trained for a trial on at most 40 images (data.limit), and evaluated on those."
    assert notes == ([f"note: run: {what}"] if limit else [])
    assert about([Run.open(run)])["limits"] == ([f"run: {what}"] if limit else [])


def test_a_calibration_that_is_not_a_table_is_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    from naevus.cli.main import app

    (tmp_path / "notes.txt").write_text("no table")
    words = ["--calibration", str(tmp_path / "notes.txt"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["export", str(runs["answers"].folder), *words])
    assert done.exit_code == 2
    assert "is not a Parquet table" in done.output
    assert not (tmp_path / "out").exists()
