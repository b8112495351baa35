"""One fold, end to end, tiny, for both tasks: what is cached, learnt, exported and predicted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from naevus.bundles.bundle import Bundle
from naevus.datasets.folds import Folds, inner_split, make_folds
from naevus.datasets.layouts import load
from naevus.errors import DataError, RunError
from naevus.evaluation.mask_metrics import compare_masks
from naevus.images.geometry import resize
from naevus.images.maskfile import read_mask
from naevus.images.preprocess import cut
from naevus.images.read import read, write_png
from naevus.inference.segmenter import Segmenter
from naevus.runs.recipe import TrainConfig
from naevus.runs.run import WEIGHTS, Run, select_pictures
from naevus.taxonomy import ISIC2019
from naevus.training import train as training_job
from naevus.training.checkpoint import load_network, save_tensors
from naevus.training.data import Material
from naevus.training.loop import Trainer, Watch
from naevus.training.tasks import ClassificationLearning, _make_learning
from naevus.training.train import export_fold, prepare, train_fold, train_folds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from naevus.datasets.dataset import Dataset

STILL = Watch(lambda *_: None, lambda _: None)
INPUTS = {
    "data": "drawn",
    "layout": "isic2018",
    "pictures": 1,
    "fingerprint": "drawn",
    "masks": None,
    "copies": [],
    "warm_start": None,
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


class Job:
    """A fold that has been trained."""

    def __init__(self, settings: dict[str, Any], data: Path, folder: Path, **extra: Any) -> None:
        self.config = TrainConfig.model_validate(settings)
        self.dataset = select_pictures(load(data), self.config)
        self.material = Material(self.dataset, folder / "cache", **extra)
        self.refused: Mapping[str, str] = prepare(self.material, self.config, silent)
        self.folds = make_folds(self.dataset, k=3)
        self.run = Run.start(folder / "run", self.config, self.folds, INPUTS)
        self.fold = self.run.fold_folder(FOLD)
        train_fold(self.run, FOLD, self.material, STILL)
        self.bundle = Bundle.read(self.run.bundle_folder(FOLD))
        self.heldout = pd.read_parquet(self.fold / "heldout.parquet")

    def learning(self) -> Any:
        training, inner = inner_split(
            self.folds, FOLD, self.dataset, self.config.data.inner_share, self.config.seed
        )
        return _make_learning(self.config, self.material, training, inner)

    def torch_logits(self, ids: list[str]) -> np.ndarray[Any, Any]:
        """What the stored weights say of cached pictures."""
        network = self.learning().network()
        load_network(self.fold / WEIGHTS, network)
        network.eval()
        store, size = self.material.stores["pictures"], self.config.input_size
        pixels = np.stack([resize(store[image_id], size, size) for image_id in ids])
        with torch.inference_mode():
            logits: np.ndarray[Any, Any] = network(torch.from_numpy(pixels)).numpy()
        return logits


@pytest.fixture(scope="module")
def outlined(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(SEGMENTATION, drawn, tmp_path_factory.mktemp("outlined"))


@pytest.fixture(scope="module")
def diagnosed(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Crops by masks that are not the true ones, and of three pictures there are none."""
    folder = tmp_path_factory.mktemp("diagnosed")
    pictures = load(drawn).part("task3")
    for number, row in enumerate(pictures.rows()):
        assert row.path is not None
        pixels = read(row.path)
        if number >= 3:
            mask = np.zeros(pixels.shape[:2], bool)
            mask[10:40, 5:30] = True
            write_png(folder / "masks" / f"{row.image_id}_segmentation.png", mask)
        if number % 4 == 0:
            write_png(folder / "copies" / f"{row.image_id}.PNG", 255 - pixels)
    write_png(folder / "copies" / "stranger.png", np.zeros((9, 9, 3), np.uint8))
    return Job(
        CLASSIFICATION,
        drawn,
        folder,
        masks=folder / "masks",
        copies=(folder / "copies",),
    )


@pytest.fixture(params=["outlined", "diagnosed"])
def job(request: pytest.FixtureRequest) -> Job:
    found: Job = request.getfixturevalue(request.param)
    return found


@pytest.mark.slow
def test_exactly_the_held_out_pictures_are_predicted(job: Job) -> None:
    assert job.refused == {}
    assert job.heldout["image_id"].tolist() == sorted(job.folds.held_out(FOLD))
    groups = job.folds.table.set_index("image_id")["group_id"]
    assert job.heldout["group_id"].tolist() == groups[job.heldout["image_id"]].tolist()
    assert job.run.finished() == [FOLD]
    assert (job.run.join()["fold"] == FOLD).all()


@pytest.mark.slow
def test_the_bundle_describes_itself(job: Job) -> None:
    spec, config = job.bundle.spec, job.config
    assert spec.tasks == (config.task,)
    (member,) = spec.members
    assert (member.folds, member.input_size) == ((FOLD,), 32)
    assert spec.provenance["folds"] == job.folds.sha256
    assert spec.provenance["recipe"] == config.fingerprint()
    assert spec.provenance["training pictures"] == len(job.learning().training.ids)
    assert not (job.fold / "network.onnx").exists()
    assert "of them trained, at 32 × 32 px" in (job.fold / "network.txt").read_text()


@pytest.mark.slow
def test_cam_offsets_are_measured_on_held_out_images(
    diagnosed: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def measured(_graph: Path, pixels: Any) -> tuple[float, float]:
        shown.append(pixels)
        return 0.25, -0.5

    monkeypatch.setattr(training_job, "cell_offset", measured)
    run, learning = (
        Run.open(shutil.copytree(diagnosed.run.folder, tmp_path / "run")),
        diagnosed.learning(),
    )
    bundle = export_fold(run, FOLD, learning, learning.network(), diagnosed.material)
    assert bundle.classifier.members[0].cell_offset == (0.25, -0.5)
    store, held_out = diagnosed.material.stores["pictures"], sorted(diagnosed.folds.held_out(FOLD))
    np.testing.assert_array_equal(shown, [[resize(store[name], 32, 32) for name in held_out]])


@pytest.mark.slow
def test_training_validation_and_held_out_parts_share_no_lesion(job: Job) -> None:
    learning = job.learning()
    groups = job.folds.table.set_index("image_id")["group_id"]
    parts = [learning.training.ids, learning.inner.ids, job.folds.held_out(FOLD)]
    sets = [set(groups[list(ids)]) for ids in parts]
    assert all(sets)
    for one, other in combinations(sets, 2):
        assert not one & other
    assert sum(map(len, parts)) == len(job.dataset)


@pytest.mark.slow
def test_a_finished_fold_is_left_as_it_is(job: Job) -> None:
    before = {path: path.stat().st_mtime_ns for path in job.fold.rglob("*")}
    train_fold(job.run, FOLD, job.material, STILL)
    assert {path: path.stat().st_mtime_ns for path in job.fold.rglob("*")} == before


@pytest.mark.slow
def test_logits_are_those_of_the_stored_weights(diagnosed: Job) -> None:
    ids = diagnosed.heldout["image_id"].tolist()
    columns = [f"logit_{code}" for code in diagnosed.bundle.classifier.classes]
    expected = diagnosed.torch_logits(ids)
    np.testing.assert_allclose(diagnosed.heldout[columns].to_numpy(), expected, atol=1e-3, rtol=0)
    assert np.ptp(expected, axis=0).max() > 0.01  # pictures differ, so their order is right


@pytest.mark.slow
def test_weights_and_shares_are_those_of_the_training_part(diagnosed: Job) -> None:
    spec = diagnosed.bundle.classifier
    (member,) = spec.members
    training, _ = inner_split(diagnosed.folds, FOLD, diagnosed.dataset, 0.1, 2018)
    truth = diagnosed.dataset.table.set_index("image_id")["diagnosis"]
    counts = truth[training].value_counts()
    shares = np.array([counts[code] for code in spec.classes]) / len(training)
    np.testing.assert_allclose(member.shares, shares)
    weights = shares**-0.5
    np.testing.assert_allclose(member.weights, weights / (shares * weights).sum(), rtol=1e-5)
    row = diagnosed.heldout.iloc[0]
    for code, share, weight in zip(spec.classes, member.shares, member.weights, strict=True):
        assert (row[f"share_{code}"], row[f"weight_{code}"]) == (share, weight)
    assert diagnosed.heldout["truth"].tolist() == truth[diagnosed.heldout["image_id"]].tolist()


@pytest.mark.slow
def test_crops_are_cut_by_the_masks_given(diagnosed: Job) -> None:
    store, masks = diagnosed.material.stores["pictures"], diagnosed.material.masks
    assert masks is not None
    assert (diagnosed.bundle.classifier.crop_mode, store.form.size) == ("crop", 48)
    for number, row in enumerate(diagnosed.dataset.rows()):
        assert row.path is not None
        assert row.mask_path is not None  # the true one, not to be used
        if number < 3:
            assert store.modes[row.image_id] == "full"
            continue
        mask = read_mask(masks / f"{row.image_id}_segmentation.png")
        expected = cut(read(row.path), mask, mode="crop", size=48, margin=0.15)
        assert store.modes[row.image_id] == "crop"
        difference = store[row.image_id].astype(int) - expected.pixels
        assert np.abs(difference).mean() < 3


@pytest.mark.slow
def test_copies_are_trained_on_and_never_validated_on(diagnosed: Job) -> None:
    pictures, copies = (diagnosed.material.stores[name] for name in ("pictures", "copies-0"))
    assert copies.ids == diagnosed.dataset.ids[::4]
    assert copies.form == replace(pictures.form, size=40)
    learning = diagnosed.learning()
    assert learning.training.copies == (pictures, copies)
    assert learning.inner.copies == (pictures,)
    image_id = copies.ids[-1]  # cut by the same mask as the picture it is a negative of
    assert copies.modes[image_id] == pictures.modes[image_id] == "crop"
    negative = 255 - resize(pictures[image_id], 40, 40).astype(int)
    assert np.abs(negative - copies[image_id]).mean() < 6


@pytest.mark.slow
def test_masks_and_their_scores_are_those_of_the_stored_weights(outlined: Job) -> None:
    ids = outlined.heldout["image_id"].tolist()
    assert len(list((outlined.run.folder / "masks").iterdir())) == len(ids)
    expected = outlined.torch_logits(ids)
    size = outlined.config.input_size
    store = outlined.material.stores["pictures"]
    squares = np.stack([resize(store[image_id], size, size) for image_id in ids])
    found = Segmenter(outlined.bundle).logits(squares)
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)
    table = outlined.heldout.set_index("image_id")
    for row in outlined.dataset.select(ids).rows():
        assert row.mask_path is not None
        mask = read_mask(outlined.run.folder / "masks" / f"{row.image_id}_segmentation.png")
        score = compare_masks(read_mask(row.mask_path), mask)
        assert table.loc[row.image_id, "jaccard"] == pytest.approx(score.jaccard)


@pytest.mark.slow
def test_the_history_is_written(outlined: Job) -> None:
    history = pd.read_csv(outlined.fold / "history.csv")
    assert history["epoch"].tolist() == [0, 1]
    assert {"loss", "inner_jaccard", "inner_sensitivity", "inner_precision"} <= set(history.columns)
    assert history["loss"].iloc[1] < history["loss"].iloc[0]


BOTH = ["task1", "task3"]


def test_only_images_with_a_target_are_selected(drawn: Path) -> None:
    dataset = load(drawn)
    config = TrainConfig.model_validate(SEGMENTATION)
    assert select_pictures(dataset, config).parts == ("task1",)
    usual = TrainConfig(task="segmentation")
    assert select_pictures(dataset, usual).parts == ("task1",)
    both = TrainConfig.model_validate({"task": "segmentation", "data": {"parts": BOTH}})
    assert select_pictures(dataset, both).parts == ("task1", "task3")
    table = dataset.table.copy()
    table.loc[table["part"] == "task1", "diagnosis"] = pd.NA
    table.loc[table["image_id"] == dataset.part("task3").ids[0], "split"] = "test"
    diagnosed = select_pictures(replace(dataset, table=table), TrainConfig(task="classification"))
    assert diagnosed.ids == dataset.part("task3").ids[1:]


def test_training_takes_the_classes_that_are_there(drawn: Path) -> None:
    dataset = load(drawn).part("task3")
    config = TrainConfig(task="classification")
    two = dataset.table[dataset.table["diagnosis"].isin(["NV", "MEL"])]
    chosen = select_pictures(replace(dataset, table=two), config)
    assert chosen.taxonomy.codes == ("MEL", "NV")
    assert select_pictures(dataset, config).taxonomy is dataset.taxonomy
    eight = two.assign(diagnosis=two["diagnosis"].replace("NV", "SCC"))
    chosen = select_pictures(replace(dataset, table=eight, taxonomy=ISIC2019), config)
    assert chosen.taxonomy.codes == ("MEL", "SCC")  # and no UNK
    alone = two[two["diagnosis"] == "NV"]
    with pytest.raises(DataError, match="all training pictures show NV"):
        select_pictures(replace(dataset, table=alone), config)
    types = two.assign(image_type=["clinical", *["dermoscopic"] * (len(two) - 1)])
    assert len(select_pictures(replace(dataset, table=types), config)) == len(two) - 1
    settings = {"task": "classification", "data": {"image_type": "all"}}
    every = TrainConfig.model_validate(settings)
    assert len(select_pictures(replace(dataset, table=types), every)) == len(two)


@pytest.mark.parametrize(
    ("settings", "column", "said"),
    [
        (CLASSIFICATION, "diagnosis", "with diagnoses in task3"),
        (SEGMENTATION, "mask_path", "with masks in task1"),
        ({"task": "segmentation", "data": {"parts": ["task9"]}}, "age", "no part 'task9'"),
    ],
)
def test_data_without_targets_is_an_error(
    settings: dict[str, Any], column: str, said: str, drawn: Path
) -> None:
    dataset = load(drawn)
    bare = replace(dataset, table=dataset.table.copy())
    bare.table[column] = pd.NA
    with pytest.raises(DataError, match=said):
        select_pictures(bare, TrainConfig.model_validate(settings))


@pytest.mark.parametrize(("name", "said"), [("empty", "no copy"), ("absent", "is not a folder")])
def test_copies_without_common_ids_are_an_error(
    name: str, said: str, drawn: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    config = TrainConfig.model_validate(CLASSIFICATION)
    dataset = first(select_pictures(load(drawn), config), 4)
    material = Material(dataset, tmp_path / "cache", copies=(tmp_path / name,))
    with pytest.raises(DataError, match=said):
        prepare(material, config, silent)


def first(dataset: Dataset, count: int) -> Dataset:
    return dataset.select(dataset.ids[:count])


def test_an_unreadable_picture_is_left_out_told_and_listed(drawn: Path, tmp_path: Path) -> None:
    config = TrainConfig.model_validate(CLASSIFICATION)
    dataset = first(select_pictures(load(drawn), config), 4)
    broken = tmp_path / f"{dataset.ids[2]}.jpg"
    broken.write_bytes(b"no picture")
    table = dataset.table.copy()
    table.loc[2, "path"] = str(broken)
    material = Material(replace(dataset, table=table), tmp_path / "cache")
    refused = prepare(material, config, silent)
    assert list(refused) == [dataset.ids[2]]
    assert len(material.stores["pictures"]) == 3
    folds = Folds(material.dataset.table[["image_id", "group_id"]].assign(fold="0"))
    run = Run.start(tmp_path / "run", config, folds, {})
    with pytest.raises(RunError, match="no fold is finished"):
        train_folds(run, [], material)
    listed = pd.read_csv(run.folder / "refused.csv")
    assert listed["image_id"].tolist() == [dataset.ids[2]]
    assert listed["problem"].str.contains(broken.name).all()


def test_a_class_without_pictures_is_told(drawn: Path, tmp_path: Path) -> None:
    config = TrainConfig.model_validate(CLASSIFICATION)
    dataset = select_pictures(load(drawn), config)
    material = Material(dataset, tmp_path / "cache")
    prepare(material, config, silent)
    table = dataset.table
    truth = dict(zip(table["image_id"], table["diagnosis"], strict=True))
    training = [image_id for image_id, code in truth.items() if code != "VASC"]
    with pytest.raises(DataError, match="no training picture of VASC"):
        ClassificationLearning(config, material.stores, training, [], truth, dataset.taxonomy)


LEAKS = ["split otherwise", "trained on what is kept for testing", "other pictures of the lesions"]


@pytest.mark.parametrize("leak", LEAKS)
def test_a_warm_start_from_a_run_that_saw_the_held_out_is_refused(
    leak: str, drawn: Path, tmp_path: Path
) -> None:
    config = TrainConfig.model_validate(SEGMENTATION)
    dataset = select_pictures(load(drawn), config)
    ours = make_folds(dataset, k=3, test_share=0.2)
    table = ours.table.copy()
    if leak == "split otherwise":
        table["fold"] = table["fold"].replace({"0": "1", "1": "0"})
    elif leak == "trained on what is kept for testing":
        table["fold"] = table["fold"].replace({"test": "2"})
    else:
        table["image_id"] = "other " + table["image_id"]
        table["fold"] = table["fold"].replace({"0": "1", "1": "0"})
    source = Run.start(tmp_path / "source", config, Folds(table), INPUTS)
    run = Run.start(tmp_path / "run", config, ours, INPUTS)
    material = Material(dataset, tmp_path / "cache", warm_start=source)
    prepare(material, config, silent)
    with pytest.raises(RunError, match="which is held out here"):
        train_fold(run, 0, material, STILL)
    assert not (run.fold_folder(0) / WEIGHTS).exists()


def test_a_warm_start_takes_over_the_weights(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig.model_validate(SEGMENTATION)
    dataset = select_pictures(load(drawn), config)
    folds = make_folds(dataset, k=3)
    source = Run.start(tmp_path / "source", config, folds, INPUTS)
    run = Run.start(tmp_path / "run", config, folds, INPUTS)
    material = Material(dataset, tmp_path / "cache", warm_start=source)
    prepare(material, config, silent)
    with pytest.raises(RunError, match="fold 0 is not finished"):
        train_fold(run, 0, material, STILL)

    training, inner = inner_split(folds, 0, dataset)
    network = _make_learning(config, material, training, inner).network()
    save_tensors(source.fold_folder(0) / WEIGHTS, network.state_dict(), {"fold": 0})

    seen: list[dict[str, torch.Tensor]] = []

    def begin(started: torch.nn.Module, *_: object) -> None:
        seen.append(started.state_dict())
        raise InterruptedError

    monkeypatch.setattr("naevus.training.train.Trainer", begin)
    with pytest.raises(InterruptedError):
        train_fold(run, 0, material, STILL)
    for name, tensor in network.state_dict().items():
        assert torch.equal(seen[0][name], tensor)


class _BeganError(Exception):
    """Training would begin, with these weights and this chance."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.weights = {name: value.clone() for name, value in network.state_dict().items()}
        self.chance = torch.rand(4)


def test_networks_of_other_seeds_start_alike(
    diagnosed: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start has a seed of its own, so that weights of several seeds can be averaged."""

    def caught(trainer: Trainer, _: Watch) -> None:
        raise _BeganError(trainer._network)

    monkeypatch.setattr(Trainer, "fit", caught)

    def start(seed: int, init_seed: int = 2018) -> _BeganError:
        settings = {"init_seed": init_seed, **CLASSIFICATION["network"]}
        config = TrainConfig.model_validate(CLASSIFICATION | {"seed": seed, "network": settings})
        run = Run.start(tmp_path / f"{seed}-{init_seed}", config, diagnosed.folds, INPUTS)
        with pytest.raises(_BeganError) as began:
            train_fold(run, FOLD, diagnosed.material, STILL)
        return began.value

    usual, other, elsewhere = start(2018), start(1), start(1, init_seed=3)
    head = "network.head.1.weight"
    assert all(torch.equal(value, other.weights[name]) for name, value in usual.weights.items())
    assert not torch.equal(usual.weights[head], elsewhere.weights[head])
    assert not torch.equal(usual.chance, other.chance)
    assert torch.equal(other.chance, elsewhere.chance)
