"""One prediction per lesion: means, disagreement, failed images, tables."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.inference.lesions import (
    ImageProbabilities,
    Lesion,
    LesionCounts,
    known_lesions,
    lesions_of,
    lesions_schema,
    put_together,
)
from naevus.inference.prediction import Prediction
from naevus.types import FailedImage, Patient

CODES = ("MEL", "NV", "BKL")


def images(count: int = 9) -> ImageProbabilities:
    logits = np.random.default_rng(0).normal(scale=2, size=(count, 3))
    natural = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [f"p{number}" for number in range(count)]
    return ImageProbabilities(ids, CODES, natural, natural[:, ::-1].copy())


def test_images_are_put_together_in_any_order() -> None:
    predicted = images()
    names = ["b", "a", None, "b", "c", "a", "b", None, "a"]
    found = put_together(names, predicted)
    assert [lesion.lesion_id for lesion in found] == ["a", "b", "c"]
    assert found[0].images == ("p1", "p5", "p8")
    rows = predicted.natural[[1, 5, 8]]
    mean = np.exp(np.log(rows).mean(axis=0))
    assert list(found[0].probabilities.values()) == pytest.approx(mean / mean.sum())
    place = int(mean.argmax())
    assert found[0].predicted == CODES[place]
    assert found[0].confidence == pytest.approx(max(mean) / mean.sum())
    assert found[0].disagreement == pytest.approx(rows[:, place].std())
    assert found[0].image_predicted == tuple(CODES[n] for n in rows.argmax(axis=1))
    assert found[0].differing == (rows.argmax(axis=1) != place).sum()
    assert found[0].predicted_balanced == CODES[2 - place]
    (single,) = put_together(["c"], predicted._replace(
        ids=["p4"], natural=predicted.natural[4:5], balanced=predicted.balanced[4:5]
    ))  # fmt: skip
    assert found[2] == single
    assert single.disagreement is None
    assert list(single.probabilities.values()) == predicted.natural[4].tolist()
    assert LesionCounts.of(found, 9)[:4] == (3, 7, 2, sum(
        len(set(lesion.image_predicted)) > 1 for lesion in found
    ))  # fmt: skip
    assert LesionCounts.of(found, 9).unknown == 2


def test_failed_images_are_named_also_where_all_of_a_lesion_fail() -> None:
    predicted = images(1)
    found = put_together(["b"], predicted, [("x", "b"), ("z", "a"), ("y", "a")])
    assert [(lesion.lesion_id, lesion.failed) for lesion in found] == [
        ("a", ("y", "z")),
        ("b", ("x",)),
    ]
    assert (found[0].predicted, found[0].confidence, found[0].disagreement) == (None, None, None)
    assert found[0].to_dict()["failed_images"] == 2
    assert "y: failed" in str(found[0])
    assert put_together([], images(0)) == []
    (alone,) = put_together([None], predicted, [("x", "b")])
    assert alone == Lesion("b", (), (), ("x",))


def test_sets_are_of_the_mean_probabilities() -> None:
    predicted = images(4)

    def sets_of(natural: np.ndarray, balanced: np.ndarray, _: object) -> np.ndarray:
        assert natural.shape == balanced.shape == (2, 3)
        return np.asarray(natural >= 0.2)

    for lesion in put_together(["a", "a", "b", "b"], predicted, (), sets_of):
        expected = [code for code in CODES if lesion.probabilities[code] >= 0.2]
        assert lesion.prediction_set == tuple(expected)


def test_predictions_become_lesions() -> None:
    predicted = images(3)
    rows = [dict(zip(CODES, row, strict=True)) for row in predicted.natural.tolist()]
    balanced = [dict(zip(CODES, row, strict=True)) for row in predicted.balanced.tolist()]
    outcomes = [
        (name, Prediction(image_id, np.zeros((2, 2, 3), np.uint8), 2, 2,
                          probabilities=one, balanced_probabilities=other))
        for name, image_id, one, other in zip("aab", predicted.ids, rows, balanced, strict=True)
    ]  # fmt: skip
    lost = FailedImage("q", "q.jpg", "is empty")
    assert lesions_of([*outcomes, ("b", lost)]) == put_together(
        ["a", "a", "b"], predicted, [("q", "b")]
    )
    assert lesions_of([("b", lost)]) == [Lesion("b", (), (), ("q",))]


def test_a_scale_or_a_lesion_id_is_no_patient() -> None:
    def sets_of(natural: np.ndarray, _: np.ndarray, patients: object) -> np.ndarray:
        seen.append(patients)
        return np.asarray(natural >= 0.2)

    seen: list[object] = []
    for metadata in ({}, {"lesion_id": "a"}, {"age": 60.0}, {"age": None, "lesion_id": "a"}):
        one = Prediction("p", np.zeros((2, 2, 3), np.uint8), 2, 2, probabilities={"MEL": 1.0},
                         balanced_probabilities={"MEL": 1.0}, metadata=metadata)  # fmt: skip
        lesions_of([("a", one)], sets_of)
    assert seen == [None, None, [Patient(60.0)], [Patient()]]


def test_lesions_that_are_not_known_are_no_lesion() -> None:
    given = {"a": "L1", "b": np.nan, "c": None, "d": pd.NA, "e": " ", "f": 7, "g": np.int64(8)}
    assert known_lesions(given) == {"a": "L1", "f": "7", "g": "8"}


@pytest.mark.parametrize("lesion", [1.0, True, ["L1"], b"L1"])
def test_lesions_are_text_or_whole_numbers(lesion: object) -> None:
    with pytest.raises(DataError, match="a lesion is"):
        known_lesions({"a": lesion})


def test_rows_have_the_columns_of_the_table() -> None:
    for lesion in put_together(["a", "a", "b"], images(3), [("x", "c")]):
        schema = lesions_schema(CODES, {"classes": CODES})
        assert set(lesion.to_row()) <= set(schema.names)
        json.dumps(lesion.to_dict(), allow_nan=False)
        text = str(lesion)
        assert lesion.lesion_id in text
        assert all(image_id in text for image_id in (*lesion.images, *lesion.failed))
