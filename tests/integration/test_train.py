"""One tiny fold of both tasks, end to end: caches, training, export and predictions."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from naevus.bundles.bundle import Bundle, builtin
from naevus.datasets.folds import Folds, make_folds, validation_split
from naevus.datasets.layouts import load
from naevus.errors import DataError, RunError
from naevus.evaluation.mask_metrics import compare_masks
from naevus.images.geometry import resize
from naevus.images.maskfile import read_mask
from naevus.images.preprocess import cut
from naevus.images.read import read, write_png
from naevus.inference.segmenter import Segmenter
from naevus.io.progress import SilentReporter, duration
from naevus.runs.images import select_images
from naevus.runs.recipe import Recipe
from naevus.runs.run import WEIGHTS, Run
from naevus.runs.start import open_start
from naevus.taxonomy import ISIC2019
from naevus.training import train as training_job
from naevus.training.callbacks import Callback, Step
from naevus.training.data import TrainingData
from naevus.training.from_graph import graph_weights
from naevus.training.loop import Trainer, load_network, save_tensors
from naevus.training.prepare import prepare, start_run
from naevus.training.tasks import ClassificationTask, _make_training_task
from naevus.training.train import export_fold, train_fold, train_folds
from tests.helpers.layouts import Warned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from naevus.datasets.dataset import Dataset

STILL = Callback()
INPUTS = {
    "data": "drawn",
    "layout": "isic2018",
    "images": 1,
    "fingerprint": "drawn",
    "masks": None,
    "copies": [],
    "init_from": None,
}
FOLD = 1

CLASSIFICATION: dict[str, Any] = {
    "task": "classification",
    "epochs": 1,
    "batch_size": 8,
    "sizes": [[0, 32]],
    "precision": "bf16",
    "workers": 0,
    "data": {"parts": ["task3"], "cache_size": 48, "copies_size": 40, "crop_mode": "crop"},
    "network": {"pretrained": "none", "backbone": "test_efficientnet"},
    "optimiser": {"ema": 0.5, "learning_rate": 1e-2},
}
SEGMENTATION: dict[str, Any] = {
    "task": "segmentation",
    "epochs": 2,
    "batch_size": 8,
    "sizes": [[0, 32]],
    "workers": 0,
    "data": {"parts": ["task1"], "cache_size": 48},
    "network": {
        "pretrained": "none",
        "architecture": "plain-unet",
        "decoder": {"channels": [8, 16]},
    },
    "optimiser": {"ema": 0, "learning_rate": 1e-2},
}


def silent(_: str) -> Callable[[int, int], None]:
    return lambda _done, _total: None


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


class Pipeline:
    """A trained fold."""

    def __init__(self, settings: dict[str, Any], data: Path, folder: Path, **extra: Any) -> None:
        self.recipe = Recipe.model_validate(settings)
        self.dataset = select_images(load(data), self.recipe)
        self.training_data = TrainingData(self.dataset, folder / "cache", **extra)
        self.refused: Mapping[str, str] = prepare(self.training_data, self.recipe, silent)
        self.folds = make_folds(self.dataset, k=3)
        self.run = Run.start(folder / "run", self.recipe, self.folds, INPUTS)
        self.fold = self.run.fold_folder(FOLD)
        train_fold(self.run, FOLD, self.training_data, STILL)
        self.bundle = Bundle.read(self.run.bundle_folder(FOLD))
        self.held_out = pd.read_parquet(self.fold / "oof.parquet")

    def training_task(self) -> Any:
        training, validation = validation_split(
            self.folds, FOLD, self.dataset, self.recipe.data.validation_fraction, self.recipe.seed
        )
        return _make_training_task(self.recipe, self.training_data, training, validation)

    def torch_logits(self, ids: list[str]) -> np.ndarray[Any, Any]:
        """Return the outputs of the stored weights for cached images."""
        network = self.training_task().network()
        load_network(self.fold / WEIGHTS, network)
        network.eval()
        cache, size = self.training_data.caches["images"], self.recipe.input_size
        pixels = np.stack([resize(cache[image_id], size, size) for image_id in ids])
        with torch.inference_mode():
            logits: np.ndarray[Any, Any] = network(torch.from_numpy(pixels)).numpy()
        return logits


@pytest.fixture(scope="module")
def segmented(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(SEGMENTATION, synthetic, tmp_path_factory.mktemp("segmented"))


@pytest.fixture(scope="module")
def classified(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Crop by masks other than the ground truth, with three images without a mask."""
    folder = tmp_path_factory.mktemp("classified")
    images = load(synthetic).part("task3")
    for number, row in enumerate(images.rows()):
        assert row.path is not None
        pixels = read(row.path)
        if number >= 3:
            mask = np.zeros(pixels.shape[:2], bool)
            mask[10:40, 5:30] = True
            write_png(folder / "masks" / f"{row.image_id}_segmentation.png", mask)
        if number % 4 == 0:
            write_png(folder / "copies" / f"{row.image_id}.PNG", 255 - pixels)
    write_png(folder / "copies" / "unknown.png", np.zeros((9, 9, 3), np.uint8))
    return Pipeline(
        CLASSIFICATION,
        synthetic,
        folder,
        masks=folder / "masks",
        copies=(folder / "copies",),
    )


@pytest.fixture(params=["segmented", "classified"])
def job(request: pytest.FixtureRequest) -> Pipeline:
    found: Pipeline = request.getfixturevalue(request.param)
    return found


@pytest.mark.slow
def test_exactly_the_held_out_images_are_predicted(job: Pipeline) -> None:
    assert job.refused == {}
    assert job.held_out["image_id"].tolist() == sorted(job.folds.held_out(FOLD))
    groups = job.folds.table.set_index("image_id")["group_id"]
    assert job.held_out["group_id"].tolist() == groups[job.held_out["image_id"]].tolist()
    assert job.run.finished() == [FOLD]
    assert (job.run.join()["fold"] == FOLD).all()


@pytest.mark.slow
def test_the_bundle_describes_itself(job: Pipeline) -> None:
    spec, recipe = job.bundle.spec, job.recipe
    assert spec.tasks == (recipe.task,)
    (member,) = spec.members
    assert (member.folds, member.input_size) == ((FOLD,), 32)
    assert spec.provenance["folds"] == job.folds.sha256
    assert spec.provenance["recipe"] == recipe.fingerprint()
    assert spec.provenance["training images"] == len(job.training_task().training.ids)
    assert not (job.fold / "network.onnx").exists()
    assert "of them trained, at 32 × 32 px" in (job.fold / "network.txt").read_text()


@pytest.mark.slow
def test_cam_offsets_are_measured_on_held_out_images(
    classified: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def measured(_graph: Path, pixels: Any) -> tuple[float, float]:
        shown.append(pixels)
        return 0.25, -0.5

    monkeypatch.setattr(training_job, "cam_offset", measured)
    run, training_task = (
        Run.open(shutil.copytree(classified.run.folder, tmp_path / "run")),
        classified.training_task(),
    )
    bundle = export_fold(
        run, FOLD, training_task, training_task.network(), classified.training_data
    )
    assert bundle.classifier.members[0].cam_offset == (0.25, -0.5)
    cache, held_out = (
        classified.training_data.caches["images"],
        sorted(classified.folds.held_out(FOLD)),
    )
    np.testing.assert_array_equal(shown, [[resize(cache[name], 32, 32) for name in held_out]])


@pytest.mark.slow
def test_training_validation_and_held_out_images_share_no_lesion(job: Pipeline) -> None:
    training_task = job.training_task()
    groups = job.folds.table.set_index("image_id")["group_id"]
    parts = [training_task.training.ids, training_task.validation.ids, job.folds.held_out(FOLD)]
    sets = [set(groups[list(ids)]) for ids in parts]
    assert all(sets)
    for one, other in combinations(sets, 2):
        assert not one & other
    assert sum(map(len, parts)) == len(job.dataset)


@pytest.mark.slow
def test_a_finished_fold_is_not_trained_again(job: Pipeline) -> None:
    before = {path: path.stat().st_mtime_ns for path in job.fold.rglob("*")}
    train_fold(job.run, FOLD, job.training_data, STILL)
    assert {path: path.stat().st_mtime_ns for path in job.fold.rglob("*")} == before


@pytest.mark.slow
def test_logits_are_those_of_the_stored_weights(classified: Pipeline) -> None:
    ids = classified.held_out["image_id"].tolist()
    columns = [f"logit_{code}" for code in classified.bundle.classifier.classes]
    expected = classified.torch_logits(ids)
    np.testing.assert_allclose(classified.held_out[columns].to_numpy(), expected, atol=1e-3, rtol=0)
    assert np.ptp(expected, axis=0).max() > 0.01  # images differ, so their order is right


@pytest.mark.slow
def test_weights_and_priors_are_those_of_the_training_images(classified: Pipeline) -> None:
    spec = classified.bundle.classifier
    (member,) = spec.members
    training, _ = validation_split(classified.folds, FOLD, classified.dataset, 0.1, 2018)
    truth = classified.dataset.table.set_index("image_id")["diagnosis"]
    counts = truth[training].value_counts()
    class_priors = np.array([counts[code] for code in spec.classes]) / len(training)
    np.testing.assert_allclose(member.class_priors, class_priors)
    weights = class_priors**-0.5
    np.testing.assert_allclose(
        member.class_weights, weights / (class_priors * weights).sum(), rtol=1e-5
    )
    row = classified.held_out.iloc[0]
    for code, fraction, weight in zip(
        spec.classes, member.class_priors, member.class_weights, strict=True
    ):
        assert (row[f"class_prior_{code}"], row[f"class_weight_{code}"]) == (fraction, weight)
    assert (
        classified.held_out["diagnosis"].tolist() == truth[classified.held_out["image_id"]].tolist()
    )


@pytest.mark.slow
def test_crops_use_the_given_masks(classified: Pipeline) -> None:
    cache, masks = classified.training_data.caches["images"], classified.training_data.masks
    assert masks is not None
    assert (classified.bundle.classifier.crop_mode, cache.input_spec.size) == ("crop", 48)
    for number, row in enumerate(classified.dataset.rows()):
        assert row.path is not None
        assert row.mask_path is not None  # the ground truth, which must not be used
        if number < 3:
            assert cache.modes[row.image_id] == "full"
            continue
        mask = read_mask(masks / f"{row.image_id}_segmentation.png")
        expected = cut(read(row.path), mask, mode="crop", size=48, margin=0.15)
        assert cache.modes[row.image_id] == "crop"
        difference = cache[row.image_id].astype(int) - expected.pixels
        assert np.abs(difference).mean() < 3


@pytest.mark.slow
def test_copies_are_trained_on_and_never_validated_on(classified: Pipeline) -> None:
    images, copies = (classified.training_data.caches[name] for name in ("images", "copies-0"))
    assert copies.ids == classified.dataset.ids[::4]
    assert copies.input_spec == replace(images.input_spec, size=40)
    training_task = classified.training_task()
    assert training_task.training.copies == (images, copies)
    assert training_task.validation.copies == (images,)
    image_id = copies.ids[-1]  # a negative of the image, with the same mask
    assert copies.modes[image_id] == images.modes[image_id] == "crop"
    negative = 255 - resize(images[image_id], 40, 40).astype(int)
    assert np.abs(negative - copies[image_id]).mean() < 6


@pytest.mark.slow
def test_masks_and_their_scores_are_those_of_the_stored_weights(segmented: Pipeline) -> None:
    ids = segmented.held_out["image_id"].tolist()
    assert len(list((segmented.run.folder / "masks").iterdir())) == len(ids)
    expected = segmented.torch_logits(ids)
    size = segmented.recipe.input_size
    cache = segmented.training_data.caches["images"]
    inputs = np.stack([resize(cache[image_id], size, size) for image_id in ids])
    found = Segmenter(segmented.bundle).logits(inputs)
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)
    table = segmented.held_out.set_index("image_id")
    for row in segmented.dataset.select(ids).rows():
        assert row.mask_path is not None
        mask = read_mask(segmented.run.folder / "masks" / f"{row.image_id}_segmentation.png")
        score = compare_masks(read_mask(row.mask_path), mask)
        assert table.loc[row.image_id, "jaccard"] == pytest.approx(score.jaccard)


@pytest.mark.slow
def test_the_history_is_written(segmented: Pipeline) -> None:
    history = pd.read_csv(segmented.fold / "history.csv")
    assert history["epoch"].tolist() == [0, 1]
    assert {"train_loss", "val_jaccard", "val_sensitivity", "val_precision"} <= set(history.columns)
    assert history["train_loss"].iloc[1] < history["train_loss"].iloc[0]
    text = (segmented.fold / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert [epoch["val_loss"] for epoch in epochs] == history["val_loss"].tolist()
    assert (lines[0]["event"], lines[-1]["event"], lines[-1]["error"]) == ("start", "end", None)


BOTH = ["task1", "task3"]


def test_only_images_with_a_target_are_selected(synthetic: Path) -> None:
    dataset = load(synthetic)
    recipe = Recipe.model_validate(SEGMENTATION)
    assert select_images(dataset, recipe).parts == ("task1",)
    usual = Recipe(task="segmentation")
    assert select_images(dataset, usual).parts == ("task1",)
    both = Recipe.model_validate({"task": "segmentation", "data": {"parts": BOTH}})
    assert select_images(dataset, both).parts == ("task1", "task3")
    table = dataset.table.copy()
    table.loc[table["part"] == "task1", "diagnosis"] = pd.NA
    table.loc[table["image_id"] == dataset.part("task3").ids[0], "split"] = "test"
    classified = select_images(replace(dataset, table=table), Recipe(task="classification"))
    assert classified.ids == dataset.part("task3").ids[1:]


def test_training_uses_the_classes_that_occur(synthetic: Path) -> None:
    dataset = load(synthetic).part("task3")
    recipe = Recipe(task="classification")
    two = dataset.table[dataset.table["diagnosis"].isin(["NV", "MEL"])]
    chosen = select_images(replace(dataset, table=two), recipe)
    assert chosen.taxonomy.codes == ("MEL", "NV")
    assert select_images(dataset, recipe).taxonomy is dataset.taxonomy
    eight = two.assign(diagnosis=two["diagnosis"].replace("NV", "SCC"))
    chosen = select_images(replace(dataset, table=eight, taxonomy=ISIC2019), recipe)
    assert chosen.taxonomy.codes == ("MEL", "SCC")  # and no UNK
    alone = two[two["diagnosis"] == "NV"]
    with pytest.raises(DataError, match="all training images show NV"):
        select_images(replace(dataset, table=alone), recipe)
    types = two.assign(image_type=["clinical", *["dermoscopic"] * (len(two) - 1)])
    assert len(select_images(replace(dataset, table=types), recipe)) == len(two) - 1
    settings = {"task": "classification", "data": {"image_type": "all"}}
    every = Recipe.model_validate(settings)
    assert len(select_images(replace(dataset, table=types), every)) == len(two)


@pytest.mark.parametrize(
    ("settings", "column", "output"),
    [
        (CLASSIFICATION, "diagnosis", "with diagnoses in task3"),
        (SEGMENTATION, "mask_path", "with masks in task1"),
        ({"task": "segmentation", "data": {"parts": ["task9"]}}, "age", "no part 'task9'"),
    ],
)
def test_data_without_targets_is_an_error(
    settings: dict[str, Any], column: str, output: str, synthetic: Path
) -> None:
    dataset = load(synthetic)
    bare = replace(dataset, table=dataset.table.copy())
    bare.table[column] = pd.NA
    with pytest.raises(DataError, match=output):
        select_images(bare, Recipe.model_validate(settings))


@pytest.mark.parametrize(("name", "output"), [("empty", "no copy"), ("absent", "not a folder")])
def test_copies_without_common_ids_are_an_error(
    name: str, output: str, synthetic: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    recipe = Recipe.model_validate(CLASSIFICATION)
    dataset = first(select_images(load(synthetic), recipe), 4)
    training_data = TrainingData(dataset, tmp_path / "cache", copies=(tmp_path / name,))
    with pytest.raises(DataError, match=output):
        prepare(training_data, recipe, silent)


def first(dataset: Dataset, count: int) -> Dataset:
    return dataset.select(dataset.ids[:count])


def test_an_unreadable_image_is_left_out_reported_and_listed(
    synthetic: Path, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(CLASSIFICATION)
    dataset = first(select_images(load(synthetic), recipe), 4)
    broken = tmp_path / f"{dataset.ids[2]}.jpg"
    broken.write_bytes(b"no image")
    table = dataset.table.copy()
    table.loc[2, "path"] = str(broken)
    training_data = TrainingData(replace(dataset, table=table), tmp_path / "cache", force=True)
    failed = prepare(training_data, recipe, silent)
    assert list(failed) == [dataset.ids[2]]
    assert len(training_data.caches["images"]) == 3
    folds = Folds(training_data.dataset.table[["image_id", "group_id"]].assign(fold="0"))
    run = start_run(tmp_path / "run", recipe, folds, training_data, ())
    with pytest.raises(RunError, match="no fold is finished"):
        train_folds(run, [], training_data)
    listed = pd.read_csv(run.folder / "failed.csv")
    assert listed["image_id"].tolist() == [dataset.ids[2]]
    assert listed["problem"].str.contains(broken.name).all()


def test_a_class_without_images_is_reported(synthetic: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(CLASSIFICATION)
    dataset = select_images(load(synthetic), recipe)
    training_data = TrainingData(dataset, tmp_path / "cache")
    prepare(training_data, recipe, silent)
    table = dataset.table
    truth = dict(zip(table["image_id"], table["diagnosis"], strict=True))
    training = [image_id for image_id, code in truth.items() if code != "VASC"]
    with pytest.raises(DataError, match="no training image of VASC"):
        ClassificationTask(recipe, training_data.caches, training, [], truth, dataset.taxonomy)


LEAKS = ["split otherwise", "trained on what is kept for testing", "other images of the lesions"]


@pytest.mark.parametrize("leak", LEAKS)
def test_initialising_from_a_run_trained_on_held_out_images_is_refused(
    leak: str, synthetic: Path, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(SEGMENTATION)
    dataset = select_images(load(synthetic), recipe)
    ours = make_folds(dataset, k=3, test_fraction=0.2)
    table = ours.table.copy()
    if leak == "split otherwise":
        table["fold"] = table["fold"].replace({"0": "1", "1": "0"})
    elif leak == "trained on what is kept for testing":
        table["fold"] = table["fold"].replace({"test": "2"})
    else:
        table["image_id"] = "other " + table["image_id"]
        table["fold"] = table["fold"].replace({"0": "1", "1": "0"})
    source = Run.start(tmp_path / "source", recipe, Folds(table), INPUTS)
    run = Run.start(tmp_path / "run", recipe, ours, INPUTS)
    training_data = TrainingData(dataset, tmp_path / "cache", init_from=source)
    prepare(training_data, recipe, silent)
    with pytest.raises(RunError, match="which is held out here"):
        train_fold(run, 0, training_data, STILL)
    assert not (run.fold_folder(0) / WEIGHTS).exists()


def test_initialising_from_a_run_copies_its_weights(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.model_validate(SEGMENTATION)
    dataset = select_images(load(synthetic), recipe)
    folds = make_folds(dataset, k=3)
    source = Run.start(tmp_path / "source", recipe, folds, INPUTS)
    run = Run.start(tmp_path / "run", recipe, folds, INPUTS)
    training_data = TrainingData(dataset, tmp_path / "cache", init_from=source)
    prepare(training_data, recipe, silent)
    with pytest.raises(RunError, match="fold 0 is not finished"):
        train_fold(run, 0, training_data, STILL)

    training, validation = validation_split(folds, 0, dataset)
    network = _make_training_task(recipe, training_data, training, validation).network()
    save_tensors(source.fold_folder(0) / WEIGHTS, network.state_dict(), {"fold": 0})

    seen: list[dict[str, torch.Tensor]] = []

    def begin(started: torch.nn.Module, *_: object) -> None:
        seen.append(started.state_dict())
        raise InterruptedError

    monkeypatch.setattr("naevus.training.train.Trainer", begin)
    with pytest.raises(InterruptedError):
        train_fold(run, 0, training_data, STILL)
    for name, tensor in network.state_dict().items():
        assert torch.equal(seen[0][name], tensor)


STEMS = {
    "segmentation": ("segmentation-0", "network.network.encoder.model.conv_stem.weight"),
    "classification": ("classification-3", "network.backbone.conv_stem.weight"),
}


@pytest.mark.parametrize("task", STEMS)
def test_initialising_from_the_built_in_bundle(
    task: str, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("naevus.training.train.IMAGES", 8)
    settings: dict[str, Any] = CLASSIFICATION
    network: dict[str, Any] = {"backbone": "tf_efficientnet_lite3"}
    if task == "segmentation":
        settings, network = SEGMENTATION, {"decoder": {"decoder_channels": [128, 64, 32, 16, 16]}}
    recipe = Recipe.model_validate(settings | {"sizes": [[0, 64]], "network": network})
    dataset = select_images(load(synthetic), recipe)
    folds, warned = make_folds(dataset, k=3), Warned()
    training_data = TrainingData(
        dataset, tmp_path / "cache", init_from=open_start("built-in"), force=True
    )
    run = start_run(tmp_path / "run", recipe, folds, training_data, [1], warned)
    assert any(text.startswith("note: built-in has learnt from") for text in warned.lines)
    assert any("has learnt on another input: size 192, not 64" in text for text in warned.lines)
    assert run.inputs["init_from"] == "built-in"

    monkeypatch.setattr("naevus.training.train.Trainer", _begin)
    with pytest.raises(_BeganError) as began:
        train_fold(run, 1, training_data, STILL)
    file, name = STEMS[task]
    graph = graph_weights(builtin() / f"{file}.onnx")
    assert torch.equal(began.value.class_weights[name], graph[name])


def _begin(network: torch.nn.Module, *_: object) -> None:
    raise _BeganError(network)


class _BeganError(Exception):
    """Return the weights and the random state at the start of training."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.class_weights = {name: value.clone() for name, value in network.state_dict().items()}
        self.chance = torch.rand(4)


def test_networks_with_different_seeds_have_the_same_initialisation(
    classified: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The initialisation has its own seed, so that weights of several seeds can be averaged."""

    def caught(trainer: Trainer, _: Callback) -> None:
        raise _BeganError(trainer._network)

    monkeypatch.setattr(Trainer, "fit", caught)

    def start(seed: int, init_seed: int = 2018) -> _BeganError:
        settings = {"init_seed": init_seed, **CLASSIFICATION["network"]}
        recipe = Recipe.model_validate(CLASSIFICATION | {"seed": seed, "network": settings})
        run = Run.start(tmp_path / f"{seed}-{init_seed}", recipe, classified.folds, INPUTS)
        with pytest.raises(_BeganError) as began:
            train_fold(run, FOLD, classified.training_data, STILL)
        return began.value

    usual, other, elsewhere = start(2018), start(1), start(1, init_seed=3)
    head = "network.head.1.weight"
    assert all(
        torch.equal(value, other.class_weights[name]) for name, value in usual.class_weights.items()
    )
    assert not torch.equal(usual.class_weights[head], elsewhere.class_weights[head])
    assert not torch.equal(usual.chance, other.chance)
    assert torch.equal(other.chance, elsewhere.chance)


class _Asks(SilentReporter, Callback):
    """Asks at each step what an interruption would lose."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def interruptible(self, note: Callable[[], str]) -> AbstractContextManager[object]:
        self.note = note
        return nullcontext()

    def step(self, step: Step) -> None:
        self.lost.append(f"{step.epoch} {self.note()}".strip())


@pytest.mark.parametrize(("seconds", "kept_after"), [(0, "1 step"), (120, "1 epoch")])
def test_an_interruption_before_the_first_checkpoint_loses_the_fold(
    seconds: int, kept_after: str, segmented: Pipeline, tmp_path: Path
) -> None:
    recipe = segmented.recipe.model_copy(update={"checkpoint_seconds": seconds})
    run = Run.start(tmp_path / "run", recipe, segmented.folds, INPUTS)
    asks = _Asks()
    train_folds(run, [FOLD], segmented.training_data, asks, [asks])
    first, *later = asks.lost
    assert first == (
        f"0 nothing of fold {FOLD} is kept yet, because its first checkpoint comes after an epoch "
        f"or {duration(seconds)} of training"
    )
    assert later.count(first) == (0 if kept_after == "1 step" else later.index("1"))
    assert set(later) - {first} == ({"0", "1"} if kept_after == "1 step" else {"1"})
