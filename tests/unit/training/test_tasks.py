"""Attributes: copies learn from their own masks, and outputs without ground truth are ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from naevus.datasets.layouts import load
from naevus.errors import DataError
from naevus.runs.images import select_images
from naevus.runs.recipe import LESION, MONITORED, Recipe
from naevus.taxonomy import ATTRIBUTES
from naevus.training.data import UNKNOWN, BatchLoader, TrainingData
from naevus.training.loop import load_network, save_tensors
from naevus.training.losses import OutputsLoss, SegmentationLoss
from naevus.training.networks import build_segmenter
from naevus.training.prepare import copies_in, prepare
from naevus.training.tasks import AttributesTask, SegmentationTask, outputs
from tests.helpers.attribute_images import COLOURS, write_shifted, write_task2

OUTPUTS = (LESION, *ATTRIBUTES)
STILL = {
    "d4": False, "rotation": 0, "scale": 0, "shift": 0, "stretch": 1, "brightness": 0,
    "contrast": 0, "saturation": 0, "hue": 0, "blur": 0, "sharpen": 0, "jpeg": 0, "hair": 0,
}  # fmt: skip
RECIPE = {
    "task": "attributes",
    "sizes": [[0, 64]],
    "batch_size": 4,
    "epochs": 1,
    "workers": 0,
    "data": {"cache_size": 64, "copies_fraction": 0.5},
    "network": {
        "pretrained": "none",
        "architecture": "plain-unet",
        "decoder": {"channels": [4, 8]},
    },
    "augment": STILL,
}


def training_task_of(
    root: Path, *copies: Path, ids: int = 20, **changed: object
) -> tuple[AttributesTask, Recipe, TrainingData]:
    recipe = Recipe.model_validate({**RECIPE, **changed})
    dataset = select_images(load(root), recipe)
    further = tuple(copies_in(folder, dataset, recipe) for folder in copies)
    training_data = TrainingData(dataset, root.parent / "cache", further=further)
    assert prepare(training_data, recipe, lambda _: lambda _done, _total: None) == {}
    names = dataset.ids[:ids]
    return (
        AttributesTask(recipe, training_data.outputs, names, names[:4]),
        recipe,
        training_data,
    )


def test_a_shifted_copy_has_its_own_mask_or_is_ignored(
    tmp_path: Path,
) -> None:
    """All copies are square, so sizes cannot reveal that a mask belongs to another copy."""
    write_task2(tmp_path / "task2")
    write_shifted(tmp_path / "task1", by=9)
    training_task, recipe, _ = training_task_of(tmp_path / "task2", tmp_path / "task1")
    assert training_task.training.outputs == OUTPUTS
    loader = BatchLoader(training_task.training, recipe)
    seen = {"own": 0, "shifted": 0}
    for epoch in range(3):
        for pixels, targets in loader.epoch(epoch):
            for image, target in zip(pixels.numpy(), targets.numpy(), strict=True):
                unknown = (target == UNKNOWN).all(axis=(1, 2))
                assert (target[~unknown] != UNKNOWN).all()
                shown = (image.astype(int) != (220, 180, 160)).any(axis=2)
                if unknown[0]:
                    seen["own"] += 1
                    assert not unknown[1:].any()
                    for k, name in enumerate(ATTRIBUTES, start=1):
                        coloured = (image == COLOURS[name]).all(axis=2)
                        assert ((target[k] > 127) == coloured).all()
                else:
                    seen["shifted"] += 1
                    assert unknown[1:].all()
                    # Only the lesion and its spots are not skin, and its mask covers them.
                    assert ((target[0] > 127) == shown).all()
    assert min(seen.values()) > 15


def test_copies_are_drawn_with_the_recipe_s_probability(tmp_path: Path) -> None:
    write_task2(tmp_path / "task2")
    write_shifted(tmp_path / "task1")
    for fraction, expected in ((0.0, 0), (1.0, 20)):
        training_task, recipe, _ = training_task_of(
            tmp_path / "task2",
            tmp_path / "task1",
            data={"cache_size": 64, "copies_fraction": fraction},
        )
        targets = torch.cat(
            [batch for _, batch in BatchLoader(training_task.training, recipe).epoch(0)]
        )
        assert int((targets[:, 0, 0, 0] != UNKNOWN).sum()) == expected


def test_an_output_without_any_mask_is_an_error(tmp_path: Path) -> None:
    write_task2(tmp_path / "task2", 8)
    with pytest.raises(DataError, match="no training image has a mask of lesion"):
        training_task_of(tmp_path / "task2")
    training_task, _, _ = training_task_of(
        tmp_path / "task2", data={"cache_size": 64, "lesion": False}
    )
    assert training_task.training.outputs == tuple(ATTRIBUTES)


def test_the_metrics_that_can_be_monitored_are_logged(tmp_path: Path) -> None:
    write_task2(tmp_path / "task2")
    write_shifted(tmp_path / "task1")
    training_task, recipe, training_data = training_task_of(tmp_path / "task2", tmp_path / "task1")
    network = training_task.network()
    logged = training_task.inspect(network, 64)
    assert set(MONITORED["attributes"]) <= logged.keys()
    alone = AttributesTask(recipe, training_data.outputs, training_task.training.ids, [])
    assert alone.inspect(network, 64) == {}


def test_validation_keeps_one_batch_at_a_time_and_means_are_over_images(tmp_path: Path) -> None:
    write_task2(tmp_path / "task2", 12)
    write_shifted(tmp_path / "task1", 12)
    _, recipe, data = training_task_of(tmp_path / "task2", tmp_path / "task1", batch_size=2)
    names = data.dataset.ids
    attributes = AttributesTask(recipe, data.outputs, names, names[:10])
    caches = {"images": data.outputs[1].images, "masks": data.outputs[1].masks[LESION]}
    alone = Recipe.model_validate(
        {**RECIPE, "task": "segmentation", "batch_size": 2, "data": {"cache_size": 64}}
    )
    lesions = SegmentationTask(alone, caches, names, names[:10])
    for training_task, network in (
        (attributes, attributes.network()),
        (lesions, lesions.network()),
    ):
        calls: list[int] = []
        network.register_forward_hook(lambda _module, given, _out: calls.append(len(given[0])))  # noqa: B023
        pairs = outputs(network, training_task.validation, recipe, 64)
        kept = []
        for pair in pairs:
            kept.append(pair)
            assert len(calls) == len(kept), "the next batch is not computed yet"
        assert calls == [4, 4, 2]
        losses = [float(training_task.loss(*pair)) for pair in kept]
        logged = training_task.inspect(network, 64)
        mean = (4 * losses[0] + 4 * losses[1] + 2 * losses[2]) / 10
        assert logged["loss"] == pytest.approx(mean)
    logits, targets = (torch.cat(each) for each in zip(*kept, strict=True))
    predicted, truth = logits > 0, targets > 127
    hit = (predicted & truth).sum((1, 2)) / (predicted | truth).sum((1, 2))
    assert logged["jaccard"] == pytest.approx(hit.mean().item())
    assert logged["sensitivity"] == pytest.approx(((predicted & truth).sum() / truth.sum()).item())


def test_a_folder_without_a_copy_of_any_image_is_refused(tmp_path: Path) -> None:
    write_task2(tmp_path / "task2", 4)
    other = tmp_path / "other"
    write_shifted(other, 6)
    for number in range(4):
        (other / "ISIC2018_Task1-2_Training_Input" / f"ISIC_{number:07d}.png").unlink()
    with pytest.raises(DataError, match="holds no copy of any image"):
        training_task_of(tmp_path / "task2", other)


def test_images_without_ground_truth_for_an_output_are_ignored_in_its_loss() -> None:
    torch.manual_seed(0)
    criterion = OutputsLoss(("bce", "jaccard"), (LESION, "streaks"))
    logits = torch.randn(3, 2, 8, 8, requires_grad=True)
    targets = (torch.rand(3, 2, 8, 8) > 0.5).float()
    targets[0, 0] = targets[1, 1] = targets[2, 1] = -1 / 255
    criterion(logits, targets).backward()
    assert logits.grad is not None
    silent = logits.grad.abs().sum((2, 3)) == 0
    assert silent.tolist() == [[True, False], [False, True], [False, True]]
    # The loss of the others is the same as without the ignored image.
    lesion = SegmentationLoss(("bce", "jaccard"))(logits[1:, 0], targets[1:, 0])
    streaks = SegmentationLoss(("bce", "jaccard"), pooled=True)(logits[:1, 1], targets[:1, 1])
    assert torch.isclose(criterion(logits, targets), (lesion + streaks) / 2)


def test_a_batch_without_ground_truth_has_no_gradient() -> None:
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    loss = OutputsLoss(("bce",), (LESION,))(logits, torch.full((2, 1, 4, 4), -1 / 255))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_attributes_are_pooled_over_the_batch_and_lesions_are_not() -> None:
    """One image without the attribute, and one with it that is missed, besides a large hit."""
    targets = torch.zeros(2, 8, 8)
    targets[0, :4] = 1
    targets[1, 0, 0] = 1
    logits = torch.where(targets > 0, 20.0, -20.0)
    logits[1, 0, 0] = -20.0
    pooled = SegmentationLoss(("jaccard",), pooled=True)(logits, targets)
    by_image = SegmentationLoss(("jaccard",))(logits, targets)
    assert pooled.item() == pytest.approx(1 - 32 / 33, abs=1e-3)
    assert by_image.item() == pytest.approx(0.5, abs=1e-3)


def test_an_attribute_network_can_start_from_a_lesion_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"channels": [4, 8]}
    source = build_segmenter("plain-unet", "", "none", settings)
    save_tensors(tmp_path / "weights.safetensors", source.state_dict(), {})
    network = build_segmenter("plain-unet", "", "none", settings, OUTPUTS)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_network(tmp_path / "weights.safetensors", network, ((LESION,), OUTPUTS))
    images = torch.randn(2, 3, 16, 16)
    network.eval()
    source.eval()
    # Not bit for bit: the rounding of a convolution depends on its number of outputs.
    torch.testing.assert_close(network(images)[:, 0], source(images))
    kernel = network.state_dict()["network.head.weight"]
    assert torch.equal(kernel[:1], source.state_dict()["network.head.weight"])
    assert torch.equal(kernel[1:], before["network.head.weight"][1:])
