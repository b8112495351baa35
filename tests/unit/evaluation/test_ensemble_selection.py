"""Ensembles of recipes, and the rule for a new member."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, recall_score

from naevus.errors import DataError
from naevus.evaluation.ensemble_selection import (
    FoldOfMember,
    MemberVerdict,
    best_temperature,
    blended,
    ensemble_scores,
    evaluate_member,
    greedy_weights,
)
from naevus.evaluation.intervals import Interval
from naevus.evaluation.out_of_fold import probabilities
from naevus.evaluation.paired_tests import Difference
from naevus.taxonomy import ISIC2018
from tests.helpers.tables import diagnoses, masks


def good_and_noise() -> dict[str, pd.DataFrame]:
    return {
        "good": diagnoses(2.0, seed=1),
        "other": diagnoses(2.0, seed=2),
        "noise": diagnoses(0.0, seed=3),
    }


def balanced_accuracy(truth: pd.Series[str], predictions: np.ndarray) -> float:
    present = sorted(set(truth))
    return float(recall_score(truth, predictions, labels=present, average="macro", zero_division=0))


def logs_of(tables: dict[str, pd.DataFrame]) -> np.ndarray:
    return np.log([probabilities(table, ISIC2018)[1] for table in tables.values()])


def test_single_and_mean_scores_equal_scikit_learn() -> None:
    tables = good_and_noise()
    scores = ensemble_scores(tables)
    truth, codes = tables["good"]["diagnosis"], np.array(ISIC2018.codes)
    for name, table in tables.items():
        predictions = codes[probabilities(table, ISIC2018)[1].argmax(1)]
        assert scores.single[name].value == pytest.approx(balanced_accuracy(truth, predictions))
    together = codes[logs_of(tables).mean(axis=0).argmax(1)]
    assert scores.mean.value == pytest.approx(balanced_accuracy(truth, together))
    assert scores.mean.value == scores.gain.a
    assert scores.greedy.value == pytest.approx(scores.gain.b)
    json.dumps(scores.to_dict(), allow_nan=False)


def test_greedy_selection_excludes_noise_and_improves() -> None:
    scores = ensemble_scores(good_and_noise())
    assert scores.weights["noise"] < 0.1
    assert min(scores.weights["good"], scores.weights["other"]) > 0.3
    assert sum(scores.weights.values()) == pytest.approx(1)
    assert scores.greedy.value > max(interval.value for interval in scores.single.values())
    assert scores.gain.difference.value > 0


def test_selection_uses_the_other_parts_only() -> None:
    # In each fold a different member is perfect: selection on the same images would choose it and
    # be always correct.
    tables = {"a": diagnoses(0.5, seed=1), "b": diagnoses(0.5, seed=2)}
    truth = np.array([ISIC2018.codes.index(code) for code in tables["a"]["diagnosis"]])
    for fold, (name, table) in enumerate(tables.items()):
        table["fold"] = np.arange(len(table)) // 2 % 2
        own = np.flatnonzero(table["fold"] == fold)
        columns = [f"logit_{code}" for code in ISIC2018.codes]
        logits = table[columns].to_numpy(copy=True)
        logits[own] = 20 * np.eye(7)[truth[own]]
        tables[name] = table.assign(**dict(zip(columns, logits.T, strict=True)))
    scores = ensemble_scores(tables)
    assert scores.greedy.value < 0.6 < scores.mean.value


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(0, 5))
def test_the_first_round_takes_the_member_with_the_least_loss(rounds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 40, 4))
    logs = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    truth = rng.integers(0, 4, 40)
    weights = greedy_weights(logs, truth, rounds)
    assert weights.sum() == pytest.approx(1)
    assert np.allclose(weights * rounds, np.round(weights * rounds))
    per_class = 1 / np.bincount(truth, minlength=4)[truth]
    losses = [
        log_loss(truth, np.exp(one), sample_weight=per_class, labels=range(4)) for one in logs
    ]
    assert greedy_weights(logs, truth, 1).argmax() == int(np.argmin(losses))
    together = log_loss(
        truth, np.exp(blended(logs, weights)), sample_weight=per_class, labels=range(4)
    )
    assert together <= min(losses) + 1e-9 or rounds < 3


def test_copies_of_a_member_equal_that_member() -> None:
    table = diagnoses(2.0)
    scores = ensemble_scores({"a": table, "b": table.sample(frac=1, random_state=0)})
    assert scores.mean.value == pytest.approx(scores.single["a"].value)
    assert (scores.gain.difference.value, scores.gain.difference.known) == (0, False)
    assert scores.weights == {"a": 1.0, "b": 0.0}  # ties go to the first


def test_images_missing_in_some_table_may_be_left_out() -> None:
    tables = {"a": diagnoses(1.0), "b": diagnoses(2.0).iloc[:200]}
    with pytest.raises(
        DataError, match=r"a and b have \d+ images in common: 40 images have no prediction in b"
    ):
        ensemble_scores(tables)
    found = ensemble_scores(tables, allow_missing=True)
    assert (found.images, found.left_out, found.to_dict()["left_out"]) == (200, 40, 40)


def test_tables_that_do_not_match_are_refused() -> None:
    table = diagnoses(1.0)
    with pytest.raises(DataError, match="at least two runs"):
        ensemble_scores({"a": table})
    with pytest.raises(DataError, match="has no logits"):
        ensemble_scores(
            {"a": masks().assign(diagnosis="MEL"), "b": masks().assign(diagnosis="MEL")}
        )
    with pytest.raises(DataError, match="no image in common"):
        ensemble_scores({"a": table, "b": table.assign(image_id=table["image_id"] + "x")})
    with pytest.raises(DataError, match="another diagnosis"):
        ensemble_scores({"a": table, "b": table.assign(diagnosis="NV")})
    with pytest.raises(DataError, match="twice"):
        ensemble_scores({"a": table, "b": pd.concat([table, table])})


# A new member.


def with_folds(strength: float, seed: int) -> pd.DataFrame:
    table = diagnoses(strength, seed=seed)
    groups = table["group_id"].astype("category").cat.codes
    return table.assign(fold=groups % 3)


def balanced_loss(truth: pd.Series[str], logs: np.ndarray, temperature: float) -> float:
    """Return the mean over classes, by scikit-learn."""
    odds = np.exp(logs / temperature)
    probability = odds / odds.sum(axis=1, keepdims=True)
    weight = 1 / truth.map(truth.value_counts())
    positions = truth.map({code: n for n, code in enumerate(ISIC2018.codes)})
    return float(log_loss(positions, probability, sample_weight=weight, labels=list(range(7))))


def test_temperatures_come_from_the_other_folds() -> None:
    present = {"a": with_folds(1.5, 1), "b": with_folds(1.5, 2)}
    new = with_folds(2.0, 3)
    verdict = evaluate_member(present, {**present, "new": new}, "new", (0, 1))
    kept = new["fold"] < 2
    truth, fold = new["diagnosis"][kept], new["fold"][kept].to_numpy()
    logs = logs_of({**present, "new": new})[:, kept]
    for names, place in (([0, 1], 0), ([0, 1, 2], 1)):
        mean = logs[names].mean(axis=0)
        losses, counts = [], []
        for each in verdict.folds:
            other = fold == 1 - each.fold
            found = best_temperature(mean[other], truth[other].map(ISIC2018.index).to_numpy())
            assert each.temperatures[place] == pytest.approx(found)
            near = [balanced_loss(truth[other], mean[other], found * f) for f in (0.97, 1, 1.03)]
            assert near[1] == min(near)
            here = fold == each.fold
            loss = balanced_loss(truth[here], mean[here], found)
            assert each.losses[place] == pytest.approx(loss)
            predictions = np.array(ISIC2018.codes)[mean[here].argmax(1)]
            assert each.balanced_accuracies[place] == pytest.approx(
                balanced_accuracy(truth[here], predictions)
            )
            losses.append(loss)
            counts.append(each.images)
        assert sum(counts) == len(truth)
        assert min(losses) <= (verdict.loss.a, verdict.loss.b)[place] <= max(losses)
    assert verdict.is_adopted
    assert verdict.loss.difference.high < 0


def test_a_single_fold_has_its_own_best_temperature() -> None:
    present, new = {"a": with_folds(1.5, 1)}, with_folds(2.0, 3)
    (fold,) = evaluate_member(present, {**present, "new": new}, "new", (1,)).folds
    inside = new["fold"] == 1
    truth, logs = new["diagnosis"][inside], logs_of({**present, "new": new})[:, inside]
    for names, place in (([0], 0), ([0, 1], 1)):
        mean = logs[names].mean(axis=0)
        found = best_temperature(mean, truth.map(ISIC2018.index).to_numpy())
        assert fold.temperatures[place] == pytest.approx(found)
        assert fold.losses[place] == pytest.approx(balanced_loss(truth, mean, found))


def test_noise_is_not_adopted_and_a_copy_changes_nothing() -> None:
    present = {"a": with_folds(2.0, 1), "b": with_folds(2.0, 2)}
    noise = evaluate_member(present, {**present, "noise": with_folds(0.0, 3)}, "noise")
    assert not noise.is_adopted
    assert any("the loss rises by 0." in reason for reason in noise.reasons)
    replaced = evaluate_member(present, {"a": present["a"], "same": present["b"]}, "same")
    assert replaced.loss.a == replaced.loss.b
    assert replaced.reasons[0] == "the loss falls by 0.0000; it must fall by 0.010"
    assert replaced.alone[0] > replaced.loss.b


def test_the_adoption_rule_checks_every_criterion() -> None:
    def verdict(losses: tuple[float, ...], accuracy: float) -> MemberVerdict:
        folds = tuple(
            FoldOfMember(n, 10, (1, 1), (0.6, 0.6 - gain), (0.8, 0.8), (0.7, 0.7))
            for n, gain in enumerate(losses)
        )
        gain = sum(losses) / len(losses)
        return MemberVerdict(
            folds,
            Difference("loss", 0.6, 0.6 - gain, Interval(-gain, -1, 1), 0.5, 9),
            Difference("accuracy", 0.8, 0.8 + accuracy, Interval(accuracy, -1, 1), 0.5, 9),
            (0.7, 0.7),
        )

    assert verdict((0.012, 0.010), -0.004).is_adopted
    assert "must fall by 0.010" in verdict((0.012, 0.006), 0.01).reasons[0]
    assert verdict((0.040, -0.001), 0.01).reasons == ("the loss does not fall on fold 1",)
    assert verdict((0.040, 0.040), -0.006).reasons == ("balanced accuracy falls by 0.0060",)
    # One fold can only reject.
    assert verdict((0.004,), 0.1).reasons == ("the loss falls by 0.0040; it must fall by 0.005",)
    assert verdict((0.040,), -0.006).reasons == ("another fold is needed",)


def test_tables_without_matching_folds_are_refused() -> None:
    table = with_folds(2.0, 1)
    for folds in ((0, 0), ()):
        with pytest.raises(DataError, match="no fold is named, or one twice"):
            evaluate_member({"a": table}, {"a": table, "b": table}, "b", folds)
    one = table[table["fold"] == 0]
    with pytest.raises(DataError, match="no image of fold 1 is in all tables"):
        evaluate_member({"a": one}, {"a": one, "b": one}, "b", (0, 1))
    with pytest.raises(DataError, match="b: has no folds"):
        evaluate_member({"a": table}, {"a": table, "b": table.drop(columns="fold")}, "b")
    moved = table.assign(fold=(table["fold"] + 1) % 2)
    with pytest.raises(DataError, match=r"another fold|no prediction"):
        evaluate_member({"a": table}, {"a": table, "b": moved}, "b", (0, 1))
    with pytest.raises(DataError, match="no prediction in b"):
        evaluate_member({"a": table}, {"a": table, "b": table[table["fold"] != 1]}, "b", (0, 1))
