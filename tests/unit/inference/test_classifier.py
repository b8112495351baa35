"""The outputs of a classifier for a batch, from one run of each graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from naevus.errors import ConfigError
from naevus.evaluation.priors import rebalance, reweigh
from naevus.evaluation.scaling import Scaling, scaled
from naevus.inference.classifier import Classifier
from naevus.types import Patient
from tests.helpers.onnx_graphs import CLASS_PRIORS, CONFORMAL, PATIENT, classification_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle


def noise(count: int, size: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_maps_add_up_to_the_natural_logits(tmp_path: Path) -> None:
    bundle = classification_bundle(
        tmp_path / "b", explained=True, seeds=(0, 1), temperature=1.7, class_weights=(1,) * 7
    )
    classifier = Classifier(bundle, tta="flips")
    output = classifier.predictions(noise(3))
    assert output.activations is not None
    assert [maps.shape for maps in output.activations] == [(3, 7, 8, 8)] * 2
    logits = np.mean([maps.mean(axis=(2, 3)) for maps in output.activations], axis=0)
    natural = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(natural, output.natural, atol=1e-5)
    np.testing.assert_allclose(logits, output.logits / 1.7, atol=1e-4)


def test_offsets_are_added_after_the_temperature(tmp_path: Path) -> None:
    offsets = (0.5, -0.5, 0.0, 1.0, -1.0, 0.3, -0.3)
    weights, class_priors = (2.0, 1, 1, 1, 1, 1, 0.5), (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    trained: dict[str, Any] = {
        "class_weights": weights,
        "class_priors": class_priors,
        "seeds": (0, 1),
    }
    plain = Classifier(classification_bundle(tmp_path / "plain", **trained))
    bundle = classification_bundle(tmp_path / "b", temperature=1.7, offsets=offsets, **trained)
    output, before = Classifier(bundle).predictions(noise(3)), plain.predictions(noise(3))
    scaling = Scaling(1.7, offsets)
    np.testing.assert_allclose(output.natural, scaled(before.natural, scaling), atol=1e-6)
    np.testing.assert_allclose(output.balanced, rebalance(output.natural, class_priors), atol=1e-6)
    np.testing.assert_array_equal(output.logits, before.logits)
    with pytest.raises(ValueError, match="there must be one offset for each class"):
        classification_bundle(tmp_path / "c", offsets=(0.1, 0.2))


def test_embeddings_of_members_are_concatenated(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", explained=True, seeds=(0, 1))
    output = Classifier(bundle).predictions(noise(3))
    assert output.embeddings is not None
    alone = [
        Classifier(classification_bundle(tmp_path / f"{seed}", explained=True, seeds=(seed,)))
        .predictions(noise(3))
        .embeddings
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(output.embeddings, np.hstack(alone), atol=1e-6)  # type: ignore[arg-type]


def test_a_graph_without_maps_is_an_error(tmp_path: Path) -> None:
    classifier = Classifier(classification_bundle(tmp_path / "b"))
    assert classifier.predictions(noise(2)).activations is None
    with pytest.raises(ConfigError, match="heatmaps need networks with the output 'cam'"):
        classifier.require("cam", "heatmaps")
    explained = Classifier(classification_bundle(tmp_path / "c", explained=True))
    explained.require("cam", "heatmaps")


@pytest.mark.parametrize(("seeds", "tta"), [((0, 1), "none"), ((0,), "flips")])
def test_uncertainty_is_that_of_the_predicted_class(
    tmp_path: Path, seeds: tuple[int, ...], tta: str
) -> None:
    bundle = classification_bundle(tmp_path / "b", seeds=seeds)
    output = Classifier(bundle, tta=tta).predictions(noise(4))  # type: ignore[arg-type]
    assert output.uncertainty is not None
    assert (output.uncertainty > 0).all()
    assert (output.uncertainty < 0.5).all()
    if len(seeds) > 1:
        predicted = output.natural.argmax(axis=1)
        own = output.members[np.arange(4), :, predicted]
        np.testing.assert_allclose(output.uncertainty, own.std(axis=1), atol=1e-12)
    one = Classifier(classification_bundle(tmp_path / "one")).predictions(noise(4))
    assert one.uncertainty is None


def test_prediction_sets_contain_classes_above_their_threshold(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", conformal=CONFORMAL)
    classifier = Classifier(bundle)
    output = classifier.predictions(noise(20))
    assert output.sets is not None
    reached = output.natural >= np.array(CONFORMAL["thresholds"])
    predicted = output.natural.argmax(axis=1)
    reached[np.arange(20), predicted] = True
    np.testing.assert_array_equal(output.sets, reached)
    assert output.sets[:, 3].all()  # a class without a threshold is never ruled out
    assert not output.sets.all()


def test_another_prevalence_only_adds_what_it_makes_most_probable(tmp_path: Path) -> None:
    bundle = classification_bundle(
        tmp_path / "b", conformal=CONFORMAL | {"thresholds": (1.0,) * 7, "groups": (90,) * 7}
    )
    plain = Classifier(bundle).predictions(noise(8))
    vascular = Classifier(bundle, prevalence=[0.01] * 6 + [0.94]).predictions(noise(8))
    assert plain.sets is not None
    assert vascular.sets is not None
    assert (plain.sets.sum(axis=1) == 1).all()
    assert vascular.sets[np.arange(8), vascular.natural.argmax(axis=1)].all()
    assert vascular.sets[plain.sets].all()
    assert (vascular.natural.argmax(axis=1) != plain.natural.argmax(axis=1)).any()


def test_there_are_no_sets_without_valid_thresholds(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", conformal=CONFORMAL)
    other = classification_bundle(tmp_path / "c", conformal=CONFORMAL, seeds=(1,))
    assert Classifier([bundle, other]).predictions(noise(2)).sets is None
    assert Classifier(bundle, tta="flips").predictions(noise(2)).sets is None


def test_another_prevalence_changes_only_natural_probabilities(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", seeds=(0, 1), conformal=CONFORMAL)
    prevalence = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0)
    plain = Classifier(bundle).predictions(noise(4))
    moved = Classifier(bundle, prevalence=prevalence).predictions(noise(4))
    np.testing.assert_allclose(moved.natural, reweigh(plain.natural, CLASS_PRIORS, prevalence))
    np.testing.assert_allclose(moved.members, reweigh(plain.members, CLASS_PRIORS, prevalence))
    np.testing.assert_array_equal(moved.balanced, plain.balanced)
    np.testing.assert_array_equal(moved.sets, plain.sets)
    assert (moved.natural[:, 6] == 0).all()
    predicted = moved.natural.argmax(axis=1)
    uncertainty = moved.members[np.arange(4), :, predicted].std(axis=1)
    np.testing.assert_allclose(moved.uncertainty, uncertainty, atol=1e-12)  # type: ignore[arg-type]


def test_an_impossible_prevalence_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b")
    (graph,) = bundle.folder.glob("*.onnx")
    graph.unlink()
    with pytest.raises(ConfigError, match="a prevalence of 2 classes do not fit 7"):
        Classifier(bundle, prevalence=(0.5, 0.5))
    with pytest.raises(ConfigError, match="prevalence"):
        Classifier(bundle, prevalence=(-1,) * 7)


def test_priors_of_members_trained_on_others_are_averaged_like_their_logarithms(
    tmp_path: Path,
) -> None:
    even = classification_bundle(tmp_path / "a", class_priors=(1 / 7,) * 7)
    skew = classification_bundle(
        tmp_path / "b", class_priors=(0.4, 0.4, 0.04, 0.04, 0.04, 0.08, 0.0)
    )
    class_priors = Classifier([even, skew]).class_priors
    assert class_priors.sum() == pytest.approx(1)
    assert class_priors[0] / class_priors[2] == pytest.approx(10**0.5)
    assert class_priors[6] == 0


PATIENTS = (Patient(40, "male", "abdomen"), Patient(site="face"), Patient(), Patient(sex="other"))


def patient_bundle(folder: Path, **settings: Any) -> Bundle:
    return classification_bundle(
        folder, seeds=(0, 1), conformal=CONFORMAL, patient=PATIENT, **settings
    )


def test_the_patient_s_data_multiply_the_odds(tmp_path: Path) -> None:
    classifier = Classifier(patient_bundle(tmp_path / "b"))
    plain, given = classifier.predictions(noise(4)), classifier.predictions(noise(4), PATIENTS)
    factors = np.ones((4, 7))
    factors[0, 0], factors[0, 1] = np.exp(-0.2), np.exp(1.0)  # terms of age cancel at 40
    factors[1, 2] = np.exp(3.0)
    for before, after in (
        (plain.natural, given.natural),
        (plain.balanced, given.balanced),
        (plain.members, given.members),
    ):
        shaped = factors if before.ndim == 2 else factors[:, None]
        expected = before * shaped / (before * shaped).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(after, expected, atol=1e-12)
        np.testing.assert_array_equal(after[2:], before[2:])  # nothing that counts is known
    np.testing.assert_array_equal(given.logits, plain.logits)
    predicted = given.natural.argmax(axis=1)
    spread = given.members[np.arange(4), :, predicted].std(axis=1)
    np.testing.assert_allclose(given.uncertainty, spread, atol=1e-12)  # type: ignore[arg-type]


def test_prediction_sets_with_data_have_their_own_thresholds(tmp_path: Path) -> None:
    classifier = Classifier(patient_bundle(tmp_path / "b"))
    plain, given = classifier.predictions(noise(4)), classifier.predictions(noise(4), PATIENTS)
    own = np.array(PATIENT["conformal"]["thresholds"])  # type: ignore[index]
    assert given.sets is not None
    np.testing.assert_array_equal(given.sets[:2], given.natural[:2] >= own)
    np.testing.assert_array_equal(given.sets[2:], plain.sets[2:])  # type: ignore[index]


def test_a_prevalence_is_applied_after_the_patient_s_data(tmp_path: Path) -> None:
    bundle, prevalence = patient_bundle(tmp_path / "b"), (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    given = Classifier(bundle).predictions(noise(4), PATIENTS)
    moved = Classifier(bundle, prevalence=prevalence).predictions(noise(4), PATIENTS)
    np.testing.assert_allclose(moved.natural, reweigh(given.natural, CLASS_PRIORS, prevalence))
    np.testing.assert_array_equal(moved.balanced, given.balanced)
    assert given.sets is not None
    likely = np.eye(7, dtype=bool)[moved.natural.argmax(axis=1)]
    np.testing.assert_array_equal(moved.sets, given.sets | likely)


def test_without_a_model_metadata_are_refused(tmp_path: Path) -> None:
    plain = classification_bundle(tmp_path / "plain")
    for bundles in (plain, [patient_bundle(tmp_path / "b"), plain]):
        with pytest.raises(ConfigError, match="plain: the bundle has no model of the patient"):
            Classifier(bundles).predictions(noise(4), PATIENTS)


def test_terms_of_other_classes_are_refused(tmp_path: Path) -> None:
    for wrong, problem in (
        ({"classes": PATIENT["classes"][::-1]}, "same classes|other classes"),  # type: ignore[index]
        ({"age": ((0.0,) * 7,)}, "terms for each age"),
        ({"ages": (60.0, 20.0)}, "ages must rise"),
        ({"sex": {"male": (0.0,)}}, "one term for each class"),
        ({"site": {"torso": (float("nan"),) * 7}}, "finite"),
    ):
        with pytest.raises(ValueError, match=problem):
            classification_bundle(tmp_path / "b", patient={**PATIENT, **wrong})
