"""A against B: what changed, whether luck explains it, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.evaluation.comparison import compare
from naevus.evaluation.evaluate import classification_scores
from naevus.evaluation.segmentation import segmentation_scores
from naevus.taxonomy import BINARY, ISIC2018


def diagnoses(sureness: float = 1.0, pictures: int = 240, seed: int = 0) -> pd.DataFrame:
    chance = np.random.default_rng(0)  # the same pictures whatever answers them
    truth = np.repeat(chance.integers(0, 3, pictures // 2), 2)  # four classes are absent
    noise = np.random.default_rng(seed).normal(size=(pictures, 7))
    logits = noise + sureness * np.eye(7)[truth]
    columns = {f"logit_{code}": logits[:, c] for c, code in enumerate(ISIC2018.codes)}
    return pd.DataFrame(
        {
            "image_id": [f"p{number:03}" for number in range(pictures)],
            "group_id": [f"g{number // 2}" for number in range(pictures)],
            "truth": [ISIC2018.codes[c] for c in truth],
            **columns,
            **{f"share_{code}": 1 / 7 for code in ISIC2018.codes},
            **{f"weight_{code}": 1.0 for code in ISIC2018.codes},
        }
    )


def masks(shift: float = 0.0) -> pd.DataFrame:
    jaccard = np.clip(np.random.default_rng(1).normal(0.78, 0.08, 100) + shift, 0, 1)
    return pd.DataFrame(
        {
            "image_id": [f"p{number:03}" for number in range(100)],
            "group_id": [f"g{number // 2}" for number in range(100)],
            "jaccard": jaccard,
            **dict.fromkeys(("dice", "sensitivity", "specificity", "accuracy"), 0.9),
            "thresholded": np.where(jaccard >= 0.65, jaccard, 0),
        }
    )


def test_a_better_network_is_told_in_one_sentence() -> None:
    a, b = diagnoses(1.0), diagnoses(4.0)
    found = compare(a, b)
    headline, probable, accuracy = found.differences
    ours, theirs = (classification_scores(table, ISIC2018)[0] for table in (a, b))
    assert headline.a == pytest.approx(ours.balanced.balanced_accuracy)
    assert headline.b == pytest.approx(theirs.balanced.balanced_accuracy)
    assert probable.b == pytest.approx(theirs.probable.balanced_accuracy)
    assert accuracy.a == pytest.approx(ours.probable.accuracy)
    assert headline.difference.low > 0
    assert headline.p < 0.001
    assert found.sentences[0].startswith("balanced accuracy, balanced decision: B is better by")
    assert found.sentences[0].endswith("120 lesions")
    assert str(found).count("\n") == 2


def test_recalls_and_changes_are_those_of_the_balanced_decision() -> None:
    a, b = diagnoses(1.0), diagnoses(4.0)
    found = compare(a, b)
    ours, theirs = (classification_scores(table, ISIC2018)[0].balanced for table in (a, b))
    recalls = {each.score.removeprefix("recall of "): each for each in found.recalls}
    assert list(recalls) == ["MEL", "NV", "BCC"]
    for before, after in zip(ours.classes[:3], theirs.classes[:3], strict=True):
        assert recalls[before.code].a == pytest.approx(before.recall)
        assert recalls[before.code].b == pytest.approx(after.recall)
        lesions = a.loc[a["truth"] == before.code, "group_id"].nunique()
        assert recalls[before.code].groups == lesions
    effects = pd.Series([change.effect for change in found.changed]).value_counts()
    right = theirs.confusion.trace() - ours.confusion.trace()
    assert effects["mended"] - effects.get("broken", 0) == right
    truths = dict(zip(a["image_id"], a["truth"], strict=True))
    for change in found.changed:
        assert change.a != change.b
        assert change.truth == truths[change.image_id]
        assert (change.effect == "mended") == (change.b == change.truth)
    assert found.mcnemar.groups == 120
    assert found.mcnemar.only_b > found.mcnemar.only_a


def test_two_seeds_of_one_network_cannot_be_told_apart() -> None:
    found = compare(diagnoses(seed=1), diagnoses(seed=2), ("one", "other"))
    assert "the data cannot tell one and other apart" in found.sentences[0]
    assert not found.differences[0].told_apart
    same = compare(diagnoses(), diagnoses())
    assert same.changed == ()
    assert {difference.p for difference in same.differences} == {1.0}


def test_masks_are_compared_by_both_means() -> None:
    a, b = masks(), masks(-0.03)
    found = compare(a, b)
    thresholded, jaccard = found.differences
    ours, theirs = (segmentation_scores(table)[0] for table in (a, b))
    assert jaccard.difference.value == pytest.approx(theirs.jaccard - ours.jaccard)
    assert thresholded.a == pytest.approx(ours.thresholded_jaccard)
    assert thresholded.b == pytest.approx(theirs.thresholded_jaccard)
    assert "A is better by" in found.sentences[0]
    crossed = (a["jaccard"] >= 0.65) & (b["jaccard"] < 0.65)
    assert [change.image_id for change in found.changed] == a["image_id"][crossed].tolist()
    assert {change.effect for change in found.changed} == {"broken"}
    assert found.recalls == ()


def test_pictures_are_joined_by_id() -> None:
    a, b = diagnoses(), diagnoses(seed=3)
    shuffled = compare(a.sample(frac=1, random_state=0), b.sample(frac=1, random_state=1))
    assert shuffled.to_dict() == compare(a, b).to_dict()
    part = compare(a.iloc[:200], b.iloc[40:], allow_missing=True)
    assert (part.pictures, part.groups, part.only_a, part.only_b) == (160, 80, 40, 40)


def test_comparisons_turn_into_json_and_tables() -> None:
    found = compare(diagnoses(), diagnoses(2.0))
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert said["differences"][0]["difference"]["value"] == found.differences[0].difference.value
    assert len(said["changed"]) == len(found.changed)
    tables = found.tables()
    assert tables["differences"]["low"].tolist() == [d.difference.low for d in found.differences]
    assert tables["recalls"]["groups"].sum() == 120
    assert tables["changed"].columns.tolist() == ["image_id", "truth", "a", "b", "effect"]


def test_what_does_not_belong_together_is_refused() -> None:
    a = diagnoses()
    other = a.assign(truth=a["truth"].replace("NV", "BKL"))
    with pytest.raises(DataError, match=r"another diagnosis in A than in B, such as p\d+; name"):
        compare(a, other)
    with pytest.raises(DataError, match="240 pictures have another group in A than in B"):
        compare(a, a.assign(group_id="x" + a["group_id"]))
    with pytest.raises(DataError, match="240 pictures have another group"):
        compare(a, a.assign(group_id=None))
    with pytest.raises(DataError, match="no picture in common"):
        compare(a, a.assign(image_id="q" + a["image_id"]))
    with pytest.raises(DataError, match="of different tasks"):
        compare(a, masks())
    with pytest.raises(DataError, match="B: p000 stands twice"):
        compare(a, pd.concat([a, a.iloc[:1]]))
    with pytest.raises(DataError, match="B: has no column group_id"):
        compare(masks(), masks().drop(columns="group_id"))
    with pytest.raises(DataError, match="without image_id"):
        compare(a, a.assign(image_id=None))


def test_other_classes_are_refused() -> None:
    a = diagnoses()
    renamed = {
        f"{kind}_{old}": f"{kind}_{new}"
        for kind in ("logit", "share", "weight")
        for old, new in zip(("MEL", "NV"), BINARY.codes, strict=True)
    }
    fewer = a.rename(columns=renamed).drop(
        columns=[name for name in a.columns if name.startswith(("logit_", "share_", "weight_"))],
        errors="ignore",
    )
    with pytest.raises(DataError, match="different classes"):
        compare(a, fewer)
    with pytest.raises(DataError, match="unknown diagnosis 'MEL'"):
        compare(*(a.rename(columns={"logit_MEL": "logit_MOLE"}),) * 2)
    with pytest.raises(DataError, match="unknown diagnosis 'XYZ'"):
        compare(*(a.assign(truth="XYZ"),) * 2)
