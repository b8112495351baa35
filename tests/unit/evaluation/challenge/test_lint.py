"""Checks of submissions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from naevus.errors import SubmissionError
from naevus.evaluation.challenge.lint import (
    count_regions_and_holes,
    lint_attributes,
    lint_classification,
    lint_segmentation,
)
from naevus.taxonomy import ATTRIBUTES, ISIC2018

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.evaluation.challenge.lint import Finding


HEADER = ",".join(("image", *ISIC2018.codes))


def kinds(findings: list[Finding]) -> set[str]:
    assert all(finding.detail and finding.remedy for finding in findings)
    return {finding.kind for finding in findings}


def test_every_refused_table_has_a_finding(golden: Path) -> None:
    folder = golden / "refused"
    expected = pd.read_csv(folder / "truth.csv")["image"].tolist()
    found = {
        path.stem: kinds(lint_classification(path, expected))
        for path in folder.glob("*.csv")
        if path.stem != "truth"
    }
    verdicts = json.loads((folder / "verdicts.json").read_text())
    assert found.keys() == verdicts.keys()
    assert all(found.values())
    assert "missing row" in found["missing_row"]
    assert "extra row" in found["extra_row"]
    assert "duplicate row" in found["duplicate_row"]
    assert "missing column" in found["missing_column"]
    assert "extra column" in found["extra_column"]
    assert "out of range" in found["above_one"] & found["negative"]
    assert "not floating-point" in found["integer_column"] & found["text_value"]
    assert "missing value" in found["not_a_number"]


def test_all_problems_of_a_table_are_found_at_once(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text(
        f"{HEADER}\n"
        "ISIC_0000001,0.4,0.4,0.2,0.0,0.0,0.0,0\n"
        "ISIC_0000002,0.9,0.9,0.9,0.9,0.9,0.8,0\n"
        "ISIC_0000003,1.5,0.0,0.0,0.0,0.0,0.0,0\n"
    )
    findings = lint_classification(path, ["ISIC_0000001", "ISIC_0000002", "ISIC_0000004"])
    assert kinds(findings) == {
        "not floating-point",
        "out of range",
        "missing row",
        "extra row",
        "tie",
        "sum",
    }
    ties = {f.subject: f.detail for f in findings if f.kind == "tie"}
    assert ties.keys() == {"ISIC_0000001", "ISIC_0000002"}
    assert "MEL and NV share" in ties["ISIC_0000001"]


def test_commas_at_the_end_of_lines_are_found(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text(f"{HEADER}\nISIC_0000001,0.9,0.1,0.0,0.0,0.0,0.0,0.0,\n")
    assert kinds(lint_classification(path)) == {"extra cells"}


def test_a_file_other_than_csv_is_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    with pytest.raises(SubmissionError, match="no such file"):
        lint_classification(path)
    path.write_bytes(b"")
    (finding,) = lint_classification(path)
    assert (finding.kind, finding.consequence) == ("not a CSV", "refused")
    path.write_text("a,b\n1,2\n")
    assert kinds(lint_classification(path)) == {"missing column"}


MASK_FINDINGS = {
    "identical": set(),
    "zero_one_mask": {"dark foreground"},
    "foreground_128": {"dark foreground"},
    "rgb": {"unreadable"},
    "bilevel_1bit": {"1-bit"},
    "other_size": {"other size"},
    "missing": {"missing mask"},
    "extra_id": {"extra mask"},
    "stray_same_number": {"several files", "irregular name"},
    "stray_text": {"stray file"},
    "truncated": {"unreadable"},
    "jpeg_mask": {"JPEG mask"},
    "empty_folder": {"missing mask"},
}


def test_every_invalid_mask_folder_has_a_finding(golden: Path, tmp_path: Path) -> None:
    verdicts = json.loads((golden / "refused_masks" / "verdicts.json").read_text())
    assert verdicts.keys() == MASK_FINDINGS.keys()
    for name, verdict in verdicts.items():
        folder = golden / "refused_masks" / name
        prediction = folder / "prediction"
        if not prediction.is_dir():
            prediction = tmp_path
        findings = lint_segmentation(prediction, folder / "truth")
        assert kinds(findings) == MASK_FINDINGS[name], name
        refused = any(finding.consequence == "refused" for finding in findings)
        assert refused == (not verdict["accepted"]), name


def save(path: Path, values: NDArray[np.uint8], **options: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path, **options)


def test_wrong_shapes_values_and_names_are_found(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    two, ring, grey = (np.zeros((20, 30), np.uint8) for _ in range(3))
    two[2:5, 2:5] = two[10:15, 10:15] = 255
    ring[2:10, 2:10] = 255
    ring[4:6, 4:6] = 0
    grey[2:8, 2:8] = 200
    save(masks / "ISIC_0000001_segmentation.png", two)
    save(masks / "ISIC_0000002_segmentation.png", ring)
    save(masks / "ISIC_0000003_segmentation.png", grey)
    save(masks / "ISIC_0000004_segmentation.png", np.zeros((20, 30), np.uint8))
    save(masks / "ISIC_0000005.png", np.full((20, 30), 255, np.uint8))
    findings = lint_segmentation(masks)
    assert {finding.subject[:12]: finding.kind for finding in findings} == {
        "ISIC_0000001": "several regions",
        "ISIC_0000002": "holes",
        "ISIC_0000003": "grey values",
        "ISIC_0000004": "empty mask",
        "ISIC_0000005": "irregular name",
    }


def test_masks_of_wrong_size_are_found(tmp_path: Path) -> None:
    masks, images = tmp_path / "masks", tmp_path / "images"
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:15] = 255
    save(masks / "ISIC_0000001_segmentation.png", mask)
    save(masks / "ISIC_0000002_segmentation.png", mask.T)
    for number in (1, 2, 3):
        save(images / f"ISIC_000000{number}.jpg", np.full((20, 30, 3), 90, np.uint8))
    found = {(finding.kind, finding.subject) for finding in lint_segmentation(masks, images)}
    assert found == {
        ("other size", "ISIC_0000002_segmentation.png"),
        ("missing mask", "ISIC_0000003"),
    }
    with pytest.raises(SubmissionError, match="no images named like"):
        lint_segmentation(masks, tmp_path)
    with pytest.raises(SubmissionError, match="nowhere does not exist"):
        lint_segmentation(tmp_path / "nowhere")
    with pytest.raises(SubmissionError, match="nowhere does not exist"):
        lint_segmentation(masks, tmp_path / "nowhere")


@settings(deadline=None, max_examples=50)
@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_regions_and_holes_follow_eulers_formula(mask: NDArray[np.bool_]) -> None:
    regions, holes = count_regions_and_holes(mask)
    m = np.pad(mask, 1).astype(int)
    cells = m.sum()
    corners = np.maximum.reduce([m[:-1, :-1], m[1:, :-1], m[:-1, 1:], m[1:, 1:]]).sum()
    edges = np.maximum(m[:-1], m[1:]).sum() + np.maximum(m[:, :-1], m[:, 1:]).sum()
    assert regions - holes == corners - edges + cells


def test_every_invalid_attribute_folder_has_a_finding(golden: Path) -> None:
    folder = golden / "refused_attributes"
    verdicts = json.loads((folder / "verdicts.json").read_text())
    for name, verdict in verdicts.items():
        found = lint_attributes(folder / name, folder / "truth")
        refused = [one for one in found if one.consequence == "refused"]
        assert bool(refused) == (not verdict["accepted"]), name
    expected = {
        "missing": "missing mask",
        "other_size": "other size",
        "colour": "unreadable",
        "twice": "several files",
        "zero_one": "dark foreground",
        "one_bit": "1-bit",
        "not_an_image": "unreadable",
    }
    for name, kind in expected.items():
        assert kind in kinds(lint_attributes(folder / name, folder / "truth")), name
    assert kinds(lint_attributes(folder / "truth", folder / "truth")) == set()


def test_other_files_in_an_attribute_folder_are_found(tmp_path: Path) -> None:
    for attribute in ATTRIBUTES:
        Image.new("L", (8, 6)).save(tmp_path / f"ISIC_0000001_attribute_{attribute}.png")
    Image.new("L", (8, 6)).save(tmp_path / "ISIC_0000001_segmentation.png")
    Image.new("L", (8, 6), 255).save(tmp_path / "mine_ISIC_0000002_attribute_streaks.png")
    found = lint_attributes(tmp_path)
    assert kinds(found) == {"stray file", "missing mask", "irregular name"}
    absent = {one.subject for one in found if one.kind == "missing mask"}
    assert absent == {f"ISIC_0000002 {name}" for name in ATTRIBUTES if name != "streaks"}
