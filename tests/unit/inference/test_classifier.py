"""What a classifier says of a batch: one run of each graph gives all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from naevus.errors import ConfigError
from naevus.evaluation.priors import rebalance, reweigh
from naevus.evaluation.scaling import Scaling, scaled
from naevus.inference.classifier import Classifier
from tests.helpers.onnx_graphs import CONFORMAL, SHARES, classification_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def noise(count: int, size: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_maps_add_up_to_the_natural_logits(tmp_path: Path) -> None:
    bundle = classification_bundle(
        tmp_path / "b", explained=True, seeds=(0, 1), temperature=1.7, weights=(1,) * 7
    )
    classifier = Classifier(bundle, views="flips")
    said = classifier.answers(noise(3))
    assert said.activations is not None
    assert [maps.shape for maps in said.activations] == [(3, 7, 8, 8)] * 2
    logits = np.mean([maps.mean(axis=(2, 3)) for maps in said.activations], axis=0)
    natural = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(natural, said.natural, atol=1e-5)
    np.testing.assert_allclose(logits, said.logits / 1.7, atol=1e-4)


def test_offsets_are_added_after_the_temperature(tmp_path: Path) -> None:
    offsets = (0.5, -0.5, 0.0, 1.0, -1.0, 0.3, -0.3)
    weights, shares = (2.0, 1, 1, 1, 1, 1, 0.5), (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    trained: dict[str, Any] = {"weights": weights, "shares": shares, "seeds": (0, 1)}
    plain = Classifier(classification_bundle(tmp_path / "plain", **trained))
    bundle = classification_bundle(tmp_path / "b", temperature=1.7, offsets=offsets, **trained)
    said, before = Classifier(bundle).answers(noise(3)), plain.answers(noise(3))
    scaling = Scaling(1.7, offsets)
    np.testing.assert_allclose(said.natural, scaled(before.natural, scaling), atol=1e-6)
    np.testing.assert_allclose(said.balanced, rebalance(said.natural, shares), atol=1e-6)
    np.testing.assert_array_equal(said.logits, before.logits)
    with pytest.raises(ValueError, match="offsets must be one for each class"):
        classification_bundle(tmp_path / "c", offsets=(0.1, 0.2))


def test_embeddings_of_members_are_concatenated(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", explained=True, seeds=(0, 1))
    said = Classifier(bundle).answers(noise(3))
    assert said.embeddings is not None
    alone = [
        Classifier(classification_bundle(tmp_path / f"{seed}", explained=True, seeds=(seed,)))
        .answers(noise(3))
        .embeddings
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(said.embeddings, np.hstack(alone), atol=1e-6)  # type: ignore[arg-type]


def test_a_graph_without_maps_is_an_error(tmp_path: Path) -> None:
    classifier = Classifier(classification_bundle(tmp_path / "b"))
    assert classifier.answers(noise(2)).activations is None
    with pytest.raises(ConfigError, match="heat maps need networks that give 'cam'"):
        classifier.require("cam", "heat maps")
    explained = Classifier(classification_bundle(tmp_path / "c", explained=True))
    explained.require("cam", "heat maps")


@pytest.mark.parametrize(("seeds", "views"), [((0, 1), "none"), ((0,), "flips")])
def test_spread_is_that_of_the_class_told(
    tmp_path: Path, seeds: tuple[int, ...], views: str
) -> None:
    bundle = classification_bundle(tmp_path / "b", seeds=seeds)
    said = Classifier(bundle, views=views).answers(noise(4))  # type: ignore[arg-type]
    assert said.spread is not None
    assert (said.spread > 0).all()
    assert (said.spread < 0.5).all()
    if len(seeds) > 1:
        told = said.natural.argmax(axis=1)
        own = said.members[np.arange(4), :, told]
        np.testing.assert_allclose(said.spread, own.std(axis=1), atol=1e-12)
    one = Classifier(classification_bundle(tmp_path / "one")).answers(noise(4))
    assert one.spread is None


def test_prediction_sets_hold_classes_above_their_threshold(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", conformal=CONFORMAL)
    classifier = Classifier(bundle)
    said = classifier.answers(noise(20))
    assert said.sets is not None
    np.testing.assert_array_equal(said.sets, said.natural >= np.array(CONFORMAL["thresholds"]))
    assert said.sets[:, 3].all()  # a class without a threshold is never ruled out
    assert not said.sets.all()


def test_there_are_no_sets_where_the_thresholds_were_not_found(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", conformal=CONFORMAL)
    other = classification_bundle(tmp_path / "c", conformal=CONFORMAL, seeds=(1,))
    assert Classifier([bundle, other]).answers(noise(2)).sets is None
    assert Classifier(bundle, views="flips").answers(noise(2)).sets is None


def test_another_case_mix_moves_the_natural_probabilities_alone(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", seeds=(0, 1), conformal=CONFORMAL)
    prevalence = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0)
    plain = Classifier(bundle).answers(noise(4))
    moved = Classifier(bundle, prevalence=prevalence).answers(noise(4))
    np.testing.assert_allclose(moved.natural, reweigh(plain.natural, SHARES, prevalence))
    np.testing.assert_allclose(moved.members, reweigh(plain.members, SHARES, prevalence))
    np.testing.assert_array_equal(moved.balanced, plain.balanced)
    np.testing.assert_array_equal(moved.sets, plain.sets)
    assert (moved.natural[:, 6] == 0).all()
    told = moved.natural.argmax(axis=1)
    spread = moved.members[np.arange(4), :, told].std(axis=1)
    np.testing.assert_allclose(moved.spread, spread, atol=1e-12)  # type: ignore[arg-type]


def test_an_impossible_prevalence_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b")
    (graph,) = bundle.folder.glob("*.onnx")
    graph.unlink()
    with pytest.raises(ConfigError, match="are not of 7"):
        Classifier(bundle, prevalence=(0.5, 0.5))
    with pytest.raises(ConfigError, match="prevalence"):
        Classifier(bundle, prevalence=(-1,) * 7)


def test_shares_of_members_trained_on_others_are_averaged_like_their_logarithms(
    tmp_path: Path,
) -> None:
    even = classification_bundle(tmp_path / "a", shares=(1 / 7,) * 7)
    skew = classification_bundle(tmp_path / "b", shares=(0.4, 0.4, 0.04, 0.04, 0.04, 0.08, 0.0))
    shares = Classifier([even, skew]).shares
    assert shares.sum() == pytest.approx(1)
    assert shares[0] / shares[2] == pytest.approx(10**0.5)
    assert shares[6] == 0
