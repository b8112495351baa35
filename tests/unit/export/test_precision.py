"""Costs of precisions on held-out images, and the choice of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from naevus.bundles.figures import Figure, StorageCost
from naevus.export import precision
from naevus.export.export import ExportCallbacks, ExportOptions, export_runs
from naevus.export.precision import REFERENCE, Variant, choose, variants
from tests.helpers.finished_runs import finished_run

if TYPE_CHECKING:
    from naevus.bundles.bundle import Bundle

BALANCED = "balanced accuracy, balanced decision"


def cost(stored: Any, computed: Any, value: float, low: float, score: str = BALANCED) -> Any:
    return StorageCost(
        task="classification",
        storage=stored,
        precision=computed,
        score=score,
        networks="one network",
        reference=0.8,
        difference=Figure(value=value, low=low, high=0.01),
        changed=0.05,
        images=100,
        groups=90,
    )


HARMLESS = (-0.001, -0.004)


def chosen(*found: Any, **more: Any) -> tuple[str, str]:
    choice = choose(found, "classification", **more)
    return choice.storage, choice.precision


def test_the_fastest_harmless_precision_is_chosen() -> None:
    whole = cost("fp32", "bf16", *HARMLESS)
    half = cost("fp16", "fp32", *HARMLESS)
    assert chosen(cost("int8", "bf16", *HARMLESS), whole, half) == ("int8", "bf16")
    assert chosen(cost("int8", "fp32", *HARMLESS), whole, half) == ("int8", "fp32")
    assert chosen(cost("int8", "bf16", -0.009, -0.02), whole, half) == ("fp32", "bf16")
    assert chosen(half) == ("fp16", "fp32")
    assert chosen() == ("fp32", "fp32")


@pytest.mark.parametrize(
    ("value", "low", "taken"),
    [
        (-0.005, -0.0099, True),
        (-0.0051, -0.0099, False),
        (-0.001, -0.01, False),
        (0.002, -0.0099, True),
        (0.002, -0.03, False),
    ],
)
def test_loss_and_interval_must_be_within_the_limits(value: float, low: float, taken: bool) -> None:
    found = chosen(cost("int8", "fp32", value, low))
    assert found == (("int8", "fp32") if taken else ("fp32", "fp32"))


def test_precisions_are_ordered_by_measured_speed() -> None:
    both = cost("int8", "fp32", *HARMLESS), cost("fp32", "bf16", *HARMLESS)
    assert chosen(*both, order=("bf16", "int8", "fp32")) == ("fp32", "bf16")
    equally_fast = cost("fp32", "bf16", *HARMLESS), cost("fp16", "bf16", *HARMLESS)
    assert chosen(*equally_fast) == ("fp16", "bf16")


def test_the_precision_depends_on_the_headline_metric_of_the_task() -> None:
    other = cost("int8", "fp32", -0.3, -0.4, "accuracy, natural decision")
    assert chosen(cost("int8", "fp32", *HARMLESS), other) == ("int8", "fp32")
    choice = choose([cost("int8", "fp32", *HARMLESS)], "segmentation")
    assert (choice.storage, choice.precision) == ("fp32", "fp32")
    assert "Jaccard" in choice.reason


@pytest.mark.parametrize(
    ("value", "low", "words"),
    [
        (-0.0008, -0.0016, "it loses 0.08 (at most 0.16)"),
        (0.0011, -0.0008, "it gains 0.11 (or loses at most 0.08)"),
        (0.003, 0.001, "it gains 0.30 (at least 0.10)"),
        (0.0, 0.0, "it gains 0.00 (at least 0.00)"),
    ],
)
def test_a_gain_is_no_negative_loss(value: float, low: float, words: str) -> None:
    choice = choose([cost("int8", "fp32", value, low)], "classification")
    assert choice.reason.endswith(f": {words}")


def test_the_reference_comes_first_and_once() -> None:
    found = variants()
    assert found[0] == REFERENCE
    assert len(set(found)) == len(found)
    assert {each.storage for each in found} == {"fp32", "fp16", "int8"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> tuple[Bundle, list[Any]]:
    """Export fold 0 of all runs; two classification runs have two folds. No int8, which is slow."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("measured")
    runs = [
        finished_run(folder / "contours", "segmentation", synthetic, (0,)),
        finished_run(folder / "answers", "classification", synthetic, (0, 1)),
        finished_run(folder / "others", "classification", synthetic, (0, 1), seed=1),
    ]
    steps: list[Any] = []
    options = ExportOptions(folds=(0,), checked=4, measure=True)
    with pytest.MonkeyPatch.context() as patch:
        pair = (REFERENCE, Variant("fp16", "fp32"))
        patch.setattr(precision, "variants", lambda: pair)
        patch.setattr("naevus.export.export.variants", lambda: pair)
        reported = ExportCallbacks(lambda _: None, lambda *step: steps.append(step))
        return export_runs(runs, folder / "bundle", options, reported), steps


@pytest.mark.slow
def test_costs_are_measured_on_all_held_out_images(measured: tuple[Bundle, Any]) -> None:
    spec = measured[0].spec
    by_task = {
        task: [each for each in spec.storage_costs if each.task == task] for task in spec.tasks
    }
    assert [each.score for each in by_task["segmentation"]] == ["Jaccard", "thresholded Jaccard"]
    assert next(each.score for each in by_task["classification"]) == BALANCED
    for each in spec.storage_costs:
        assert (each.storage, each.precision) == ("fp16", "fp32")
        assert abs(each.difference.value) < 0.05
        assert each.groups <= each.images
        assert 0 <= each.changed < 0.2
    assert {each.networks for each in by_task["segmentation"]} == {"contours fold 0"}
    assert {each.networks for each in by_task["classification"]} == {
        "ensemble of 2 networks on each of 2 folds"
    }
    held_out = by_task["classification"][0].images
    assert held_out > by_task["segmentation"][0].images
    assert [choice.task for choice in spec.recommended] == list(spec.tasks)
    # The recommended storage and precision are used.
    segmentation, classification = (choice.storage for choice in spec.recommended)
    assert [each.storage for each in spec.members] == [segmentation, classification, classification]
    for choice in spec.recommended:
        assert spec.recommended_precision(choice.task) == choice.precision


@pytest.mark.slow
def test_the_card_shows_the_costs(measured: tuple[Bundle, Any]) -> None:
    card = (measured[0].folder / "MODEL_CARD.md").read_text()
    assert "| segmentation | fp16, fp32 | Jaccard | " in card
    assert "\n- classification: stored in fp" in card


@pytest.mark.slow
def test_progress_counts_every_step(measured: tuple[Bundle, list[tuple[int, int]]]) -> None:
    steps = measured[1]
    # 3 graphs checked, 2 tables evaluated, 1 set of statistics, 5 graphs in 2 precisions.
    assert steps == [(done, 3 + 2 + 1 + 5 * 2) for done in range(17)]
