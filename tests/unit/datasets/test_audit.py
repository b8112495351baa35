"""The audit: every kind of finding, from data with that problem."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from naevus.datasets.audit import Audit, audit
from naevus.datasets.dataset import Dataset, Problem, make_table
from naevus.datasets.duplicates import (
    LARGEST_MERGE,
    appearance_of,
    components,
    correlation,
    detail_of,
    find_duplicates,
)
from naevus.datasets.layouts import load
from naevus.images.geometry import d4_transform, resize
from naevus.images.read import Limits, read, write_png
from naevus.types import FLAGS
from tests.helpers.attribute_images import TRUTH, draw, write_task2

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def lesion(seed: int, size: int = 160) -> NDArray[np.uint8]:
    """Textured skin with a dark spot in the middle; images differ only in details."""
    rng = np.random.default_rng(seed)
    noise = sum(
        cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), sigma) * sigma * 30
        for sigma in (2, 6, 14)
    )
    y, x = np.mgrid[:size, :size] / size - 0.5
    edge = 0.08 + 0.02 * rng.normal() + 0.0002 * np.asarray(noise)
    blotch = 90 / (1 + np.exp((x**2 + y**2 - edge**1.2) * 150))
    grey = 170 + 0.6 * np.asarray(noise) - blotch
    return np.asarray(np.clip(grey[:, :, None] + (25, -10, -20), 0, 255)).astype(np.uint8)


def reencoded(pixels: NDArray[np.uint8], quality: int = 60) -> NDArray[np.uint8]:
    _, packed = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


class Loader:
    """Write images and record their rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []

    def add(self, image_id: str, pixels: NDArray[np.uint8] | None = None, **row: object) -> Path:
        path = self.folder / f"{image_id}.png"
        number = len(self.rows)
        write_png(path, lesion(number) if pixels is None else pixels)
        known = {"diagnosis": "NV", "lesion_id": f"L{number}", "sex": "female", "age": 45}
        self.rows.append({"image_id": image_id, "path": str(path), **known, **row})
        return path

    def add_mask(self, pixels: NDArray[Any]) -> str:
        image_id = f"m{len(self.rows)}"
        path = self.folder / f"{image_id}_mask.png"
        write_png(path, pixels)
        self.add(image_id, mask_path=str(path))
        return image_id

    def audit(self, *problems: Problem, **settings: Any) -> Audit:
        table = make_table(pd.DataFrame(self.rows))
        dataset = Dataset(table, self.folder, "made", problems=problems)
        return audit(dataset, **settings)


@pytest.fixture
def made(tmp_path: Path) -> Loader:
    loader = Loader(tmp_path)
    for number in range(6):
        loader.add(f"p{number}")
    return loader


def kinds(found: Audit) -> dict[str, str]:
    """Return the subjects of findings by kind, except few lesions, expected in a small set."""
    return {f.kind: f.subject for f in found.findings}


def test_sound_data_has_no_findings(made: Loader) -> None:
    seen: list[tuple[int, int]] = []
    found = made.audit(progress=lambda done, of: seen.append((done, of)))
    assert found.findings == []
    assert (6, 6) in seen
    assert len(found.duplicates) == 0
    assert found.groups == {}
    rows = found.counts.set_index(["column", "value"])
    assert tuple(rows.loc[("diagnosis", "NV"), ["images", "lesions"]]) == (6, 6)
    assert tuple(rows.loc[("age_band", "40-59"), ["images", "lesions"]]) == (6, 6)


def test_unreadable_files_are_errors(made: Loader) -> None:
    whole = made.add("cut").read_bytes()
    (made.folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    made.add("empty").write_bytes(b"")
    made.add("text").write_text("not an image")
    made.add("gone").unlink()
    found = made.audit()
    bad = {f.subject: f.detail for f in found.findings if f.kind == "unusable image"}
    assert set(bad) == {"cut", "empty", "text", "gone"}
    assert len(set(bad.values())) == 4, "each says what it is"
    assert found.errors == 4
    small = made.audit(limits=Limits(pixels=1000))
    assert small.errors == 10


def test_files_read_with_warnings_are_findings(made: Loader) -> None:
    path = made.add("doubtful")
    pixels = Image.open(path).convert("RGB")
    pixels.save(path, "JPEG", quality=90)
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes(range(1, 99)) + content[-2:])
    path = made.add("frames")
    pixels.save(path, "TIFF", save_all=True, append_images=[pixels])
    found = made.audit().findings
    reported = {f.subject: f.detail for f in found if f.kind == "doubtful image"}
    assert reported == {"doubtful": FLAGS["damaged"], "frames": FLAGS["first_frame"]}
    assert {f.severity for f in found if f.kind == "doubtful image"} == {"warning"}


def test_layout_problems_are_findings(made: Loader) -> None:
    found = made.audit(
        Problem("row without image", "x1", "labels.csv"),
        Problem("mask without image", "x2", ""),
    )
    assert [(f.severity, f.subject) for f in found.findings] == [("error", "x1"), ("warning", "x2")]


def test_faulty_masks_are_findings(made: Loader) -> None:
    good = np.zeros((160, 160), np.uint8)
    good[40:90, 50:120] = 255
    made.add_mask(good)
    size = made.add_mask(good[:150])
    ones = made.add_mask(good // 255)
    soft = made.add_mask(resize(resize(good, 40, 40), 160, 160))
    tiny = made.add_mask(
        np.where(np.arange(160 * 160).reshape(160, 160) < 100, 255, 0).astype("u1")
    )
    full = made.add_mask(np.full((160, 160), 255, np.uint8))
    coloured = made.add_mask(lesion(1))
    found = {(f.subject, f.kind): f for f in made.audit().findings}
    assert {key for key in found if key[0].startswith("m")} == {
        (size, "mask of another size"),
        (ones, "mask written unusually"),
        (soft, "mask not binary"),
        (tiny, "implausible mask"),
        (full, "implausible mask"),
        (coloured, "unusable mask"),
    }
    assert found[size, "mask of another size"].detail == "mask 160 x 150, image 160 x 160"
    assert found[ones, "mask written unusually"].detail == "read as 0 and 1"
    assert found[soft, "mask not binary"].severity == "warning"
    assert found["all", "no mask"].detail == "6 of 13 images: p0, p1, p2, p3, p4 ..."
    assert "0.39%" in found[tiny, "implausible mask"].detail


def test_faulty_labels_are_findings(made: Loader) -> None:
    made.add("a", lesion_id="X", diagnosis="MEL", split="train")
    made.add("b", lesion_id="X", diagnosis="NV", split="test", sex="male")
    made.add("c", diagnosis=None)
    found = made.audit()
    assert kinds(found) == {
        "contradictory diagnoses": "X",
        "group in several splits": "X",
        "contradictory sexes": "X",
        "no diagnosis": "all",
        "few lesions": "all MEL",
    }
    detail = next(f.detail for f in found.findings if f.kind == "contradictory diagnoses")
    assert detail == "a MEL, b NV"
    assert found.errors == 2


def test_rows_without_an_image_are_not_counted(made: Loader) -> None:
    made.add("a", path=None, lesion_id="X", diagnosis="MEL")
    made.add("b", lesion_id="X", diagnosis="NV")
    made.add("c", path=None, diagnosis=None, sex="male")
    found = made.audit()
    rows = found.counts.set_index(["column", "value"])["images"]
    assert (found.images, rows["diagnosis"].to_dict()) == (7, {"NV": 7})
    assert kinds(found) == {"contradictory diagnoses": "X"}  # the table's own fault


def test_copies_are_found_by_bytes_and_by_content(made: Loader) -> None:
    shutil.copy(made.folder / "p0.png", made.add("same"))
    turned = reencoded(d4_transform(resize(lesion(1), 128, 128), 6))
    made.add("turned", turned, diagnosis="MEL", split="test")
    moved = reencoded(lesion(2)[8:, 5:])
    made.add("moved", moved, part="other")
    made.add("again", reencoded(lesion(3), 80), lesion_id="L3")
    found = made.audit()
    pairs = {(p.image_a, p.image_b): p for p in found.duplicates.itertuples()}
    assert set(pairs) == {
        ("p0", "same"),
        ("p1", "turned"),
        ("p2", "moved"),
        ("again", "p3"),
    }
    assert pairs["p0", "same"].kind == "exact"
    assert pairs["p1", "turned"].view != 0
    listed = {(f.kind, f.severity, f.subject) for f in found.findings}
    assert {
        ("exact duplicate", "error", "p0 same"),
        ("near-duplicate across lesions", "warning", "p1 turned"),
        ("duplicate with different splits", "error", "p1 turned"),
        ("duplicate with different diagnoses", "error", "p1 turned"),
        ("near-duplicate across tasks", "warning", "p2 moved"),
    } <= listed
    assert not any("again" in subject for _, _, subject in listed), "one lesion, as it says"
    assert found.groups == {
        "p0": "L0", "same": "L0", "p1": "L1", "turned": "L1", "p2": "L2", "moved": "L2",
    }  # fmt: skip
    assert found.merged == [["p0", "same"], ["p1", "turned"], ["moved", "p2"]]


def test_a_large_component_is_reported_and_not_merged(made: Loader) -> None:
    for number in range(LARGEST_MERGE):
        made.add(f"q{number:02}", reencoded(lesion(0), 40 + 4 * number))
    found = made.audit()
    assert kinds(found) == {
        "large merged component": "p0",
        "near-duplicate across lesions": "q10 q11",
    }
    assert found.errors == 1
    assert len(found.merged[0]) == LARGEST_MERGE + 1
    assert found.groups == {}


def test_blank_images_are_not_duplicates_of_each_other(tmp_path: Path) -> None:
    decoded = [appearance_of(np.full((80, 90, 3), value, np.uint8)) for value in (0, 10, 255)]
    assert find_duplicates(decoded) == []
    assert find_duplicates([]) == []


def test_registration_follows_shift_and_zoom_but_not_another_lesion() -> None:
    pixels = lesion(5, 200)
    first = detail_of(pixels)
    zoomed = resize(pixels[10:190, 12:192], 160, 160)
    assert correlation(first, detail_of(reencoded(zoomed))) > 0.93
    dimmed = (pixels * 0.7 + 20).astype(np.uint8)
    assert correlation(first, detail_of(dimmed)) > 0.97
    assert max(correlation(first, detail_of(lesion(seed, 200))) for seed in range(6, 16)) < 0.9


def test_components_are_joined_pairs() -> None:
    joined = components([(1, 2), (5, 6), (2, 3), (7, 7), (3, 1)])
    assert sorted(sorted(members) for members in joined) == [[1, 2, 3], [5, 6], [7]]


def test_a_real_dark_spot_on_plain_skin_matches_no_other(shared_data: Path) -> None:
    folder = shared_data / "isic2018" / "ISIC2018_Task3_Training_Input"

    def hash_of(number: str) -> NDArray[np.int8]:
        return detail_of(read(folder / f"ISIC_00{number}.jpg", shortest=64))

    assert correlation(hash_of("26223"), hash_of("29187")) < 0.9
    assert correlation(hash_of("27027"), hash_of("29036")) > 0.95, "one lesion with two ids"


def test_attribute_masks_are_read_and_counted(tmp_path: Path) -> None:
    write_task2(tmp_path, 4)
    bad = tmp_path / TRUTH / "ISIC_0000001_attribute_streaks.png"
    bad.write_bytes(b"no mask")
    write_png(tmp_path / TRUTH / "ISIC_0000002_attribute_globules.png", np.zeros((9, 9), bool))
    write_png(tmp_path / TRUTH / "ISIC_0000003_attribute_globules.png", np.ones((64, 64), bool))
    found = audit(load(tmp_path))
    of_masks = {
        (finding.kind, finding.severity, finding.subject, finding.detail.partition(":")[0])
        for finding in found.findings
        if "mask" in finding.kind
    }
    assert of_masks == {
        ("unusable mask", "error", "ISIC_0000001", "streaks"),
        ("mask of another size", "error", "ISIC_0000002", "globules"),
        ("implausible mask", "warning", "ISIC_0000003", "globules"),
    }
    counted = found.counts[found.counts["column"] == "attribute"].set_index("value")["images"]
    pigment = sum(bool(draw(number)[1]["pigment_network"].any()) for number in range(4))
    assert counted["pigment_network"] == pigment > 0
