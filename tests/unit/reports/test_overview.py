"""Overviews of predictions: the page, and the sheet."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from naevus.errors import DataError
from naevus.images.geometry import Box
from naevus.images.masks import ATTRIBUTE_COLOURS
from naevus.images.measurements import Measurements, size_columns
from naevus.images.read import read, write_png
from naevus.reports.overview import overview_of, write_overview, write_overview_sheet
from naevus.runs import prediction_tables
from naevus.runs.prediction_tables import ABOUT, Schema
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from pathlib import Path


SIZES = Measurements(40_000, 225.7, 282.8, 282.8, 800.0, 0.02, 1.27, 14.2)


def predictions(
    folder: Path,
    count: int = 5,
    classes: tuple[str, ...] = ISIC2018.codes,
    scale: float | None = None,
) -> Path:
    """Write predictions of ``count`` images; the last one is not where it was."""
    about = {"classes": list(classes), "taxonomy": "isic2018" if classes else None, "coverage": 0.9}
    rows = []
    for number in range(count):
        name = f"<{number}>" if number == 0 else f"i{number}"
        path = folder / "images" / f"{number}.png"
        if number < count - 1:
            write_png(path, np.full((300, 400, 3), 40 * number, np.uint8))
        mask = np.zeros((300, 400), bool)
        mask[50:250, 100:300] = True
        pixels = mask.astype(np.uint8) * np.uint8(255)
        write_png(folder / "out" / "masks" / f"{name}_segmentation.png", pixels)
        odds = {f"prob_{code}": 0.0 for code in classes}
        if classes:
            odds |= {"prob_MEL": number / 10, "prob_BCC": 0.1, "prob_NV": 0.9 - number / 10}
        rows.append(
            {
                "image_id": name,
                "path": str(path),
                "height": 300,
                "width": 400,
                **odds,
                "predicted": "NV" if classes else None,
                "confidence": 0.9 - number / 10 if classes else None,
                "prediction_set": ["NV", "MEL"] if classes else None,
                "quality_flags": ["cut_by_border"] if number % 2 else [],
                "lesion_area": 1 / 3,
                **size_columns(
                    Box(100, 50, 300, 250), number == 1, None if number == 1 else SIZES, scale
                ),
            }
        )
    table = pa.Table.from_pylist(
        rows, Schema(classes, (), about, millimetres=scale is not None).arrow()
    )
    pq.write_table(table, folder / "out" / "predictions.parquet")
    return folder / "out"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"age": 61.0, "sex": "female", "site": "back"}, "61 years, female, back"),
        ({"age": 60.5, "site": "<b>"}, "60.5 years, &lt;b&gt;"),
        ({"sex": "male"}, "male"),
        ({}, None),
    ],
)
def test_an_overview_shows_the_patient_s_data(
    tmp_path: Path, values: dict[str, Any], words: str | None
) -> None:
    out = predictions(tmp_path, 3)
    table = pq.read_table(out / "predictions.parquet")
    for name, value in values.items():
        table = table.append_column(name, pa.array([value, value, None]))
    pq.write_table(table, out / "predictions.parquet")
    found = overview_of(out)
    write_overview(found, out / "overview.html")
    page = (out / "overview.html").read_text()
    assert page.count('<p class="patient">') == (0 if words is None else 2)
    assert words is None or f'<p class="patient">{words}</p>' in page
    assert ('<option value="age">' in page) == ("age" in values)
    captions = [card.caption.splitlines()[-1] for card in found.cards]
    assert captions[1] == (found.cards[1].patient or "i1")


KNOWN = {"sex": ["female", "male"], "site": ["torso"]}


@pytest.mark.parametrize(
    ("settings", "sentence", "brief"),
    [
        (
            {"metadata": {"columns": ["age", "sex", "site"], "known": KNOWN}},
            "probabilities of 2 of 3 images include the patient&#39;s data: age of 1, site of 1.",
            "probabilities with the patient's data",
        ),
        (
            {"metadata": {"columns": ["age", "sex", "site"], "known": {}}},
            "The probabilities of 1 of 3 images include the patient&#39;s data: age of 1.",
            "probabilities with the patient's data",
        ),
        (
            {"metadata": {"columns": ["sex"], "known": KNOWN}},
            "The probabilities of 0 of 3 images include the patient&#39;s data.",
            "",
        ),
        (
            {"metadata": {"columns": ["age", "sex", "site"]}},
            "No probability includes the patient&#39;s data, which are only shown.",
            "",
        ),
        (
            {"classifier": {"prevalence": [1 / 7] * 7}},
            "Probabilities are for the prevalence that was given.",
            "probabilities for the given prevalence",
        ),
        ({"classifier": {"prevalence": None}, "metadata": {"columns": ["lesion_id"]}}, "", ""),
        ({}, "", ""),
    ],
)
def test_an_overview_says_what_probabilities_depend_on(
    tmp_path: Path, settings: dict[str, Any], sentence: str, brief: str
) -> None:
    out = predictions(tmp_path, 3)
    table = pq.read_table(out / "predictions.parquet")
    values = {"age": [61.0, None, None], "sex": ["other"] * 3, "site": [None, "elbow", "back"]}
    for name, column in values.items():
        table = table.append_column(name, pa.array(column))
    about = json.loads(table.schema.metadata[ABOUT]) | settings
    table = table.replace_schema_metadata({ABOUT: json.dumps(about)})
    pq.write_table(table, out / "predictions.parquet")
    found = overview_of(out)
    assert found.conditions.brief == brief
    write_overview(found, out / "overview.html")
    page = (out / "overview.html").read_text()
    assert sentence in page
    assert ("the patient&#39;s data" in page) == ("patient" in sentence)
    assert ("Probabilities are natural" in page) == ("prevalence" not in sentence)


def test_an_overview_shows_the_attributes_that_are_likely(tmp_path: Path) -> None:
    out = predictions(tmp_path, 3)
    plain = (out / "plain.html", out / "attributes.html")
    write_overview(overview_of(out), plain[0])
    assert "pigment network" not in plain[0].read_text()
    table = pq.read_table(out / "predictions.parquet")
    for name, values in (("pigment_network", [0.9, 0.2, 0.5]), ("streaks", [0.6, 0.1, 0.95])):
        table = table.append_column(f"presence_{name}", pa.array(values))
    pq.write_table(table, out / "predictions.parquet")
    mask = np.zeros((300, 400), np.uint8)
    mask[100:200, 150:250] = 255
    write_png(out / "attributes" / "i1_attribute_streaks.png", mask)
    found = overview_of(out)
    assert [card.attributes for card in found.cards] == [
        (("pigment network", 0.9), ("streaks", 0.6)), (),
        (("streaks", 0.95), ("pigment network", 0.5)),
    ]  # fmt: skip
    red, green, blue = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(found.cards[1].jpeg))), np.int16
    )[64:128, 96:160].transpose(2, 0, 1)  # around the mask in the small copy
    assert ((red - blue > 60) & (red > green)).any()  # streaks are vermilion
    assert [card.contours for card in found.cards] == [
        ("predicted contour",), ("predicted contour", "streaks"), (),
    ]  # fmt: skip
    write_overview_sheet(found, tmp_path / "sheet.png")
    legend = read(tmp_path / "sheet.png")[:100].reshape(-1, 3).tolist()
    for name in ("streaks", "globules"):
        assert (list(ATTRIBUTE_COLOURS[name]) in legend) == (name == "streaks")
    write_overview(found, plain[1])
    page = plain[1].read_text()
    assert "<dt>streaks</dt><dd>60 %</dd>" in page
    assert "vermilion streaks" in page


def test_an_overview_shows_every_image_without_a_ground_truth(tmp_path: Path) -> None:
    out = predictions(tmp_path)
    found = overview_of(out)
    assert [card.name for card in found.cards] == ["<0>", "i1", "i2", "i3", "i4"]
    card = found.cards[2]
    assert (card.answer, card.melanoma) == ("NV", 0.2)
    assert card.confidence == pytest.approx(0.7)
    assert card.malignant == pytest.approx(0.3)  # melanoma and basal cell carcinoma
    assert (card.sets, card.flags) == (("NV", "MEL"), ())
    small = np.asarray(Image.open(io.BytesIO(base64.b64decode(card.jpeg))))
    assert small.shape == (192, 256, 3)
    cyan = (small[:, :, 0] < 150) & (small[:, :, 1:].min(axis=2) > 170)
    assert set(np.flatnonzero(cyan.any(axis=1))) >= {33, 100, 158}  # the contour's rows
    assert not found.cards[4].jpeg
    (note,) = found.notes
    assert note == (
        "Moved, deleted or changed after the prediction, and not shown: 1 image, such as "
        f"{tmp_path / 'images' / '4.png'}: does not exist."
    )
    write_overview(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<li ") == 5
    assert page.count("data:image/jpeg") == 4
    assert "&lt;0&gt;" in page
    assert "<0>" not in page
    assert "default-src 'none'" in page
    for word in ("cut by border", "image moved or changed", "20 %", "30 %", 'data-melanoma="0.2"'):
        assert word in page, word
    write_overview_sheet(found, tmp_path / "sheet.png", count=3)
    assert read(tmp_path / "sheet.png").shape[1] == 10 + 3 * (192 + 10)


@pytest.mark.parametrize("size", [(400, 300), (300, 401), (30, 40)])
def test_an_image_of_another_size_is_not_shown_as_the_predicted_one(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    out = predictions(tmp_path, 4)
    write_png(tmp_path / "images" / "1.png", np.zeros((*size, 3), np.uint8))
    write_png(tmp_path / "images" / "3.png", np.zeros((300, 400, 3), np.uint8))
    found = overview_of(out)
    assert [bool(card.jpeg) for card in found.cards] == [True, False, True, True]
    note = found.notes[0]
    assert "not shown: 1 image, such as " in note
    assert f"1.png: has {size[1]} x {size[0]} pixels, but 400 x 300 were predicted." in note


def test_images_that_were_written_after_the_prediction_are_counted(tmp_path: Path) -> None:
    out = predictions(tmp_path, 4)
    later = (out / "predictions.parquet").stat().st_mtime + 60
    os.utime(tmp_path / "images" / "0.png", (later, later))
    found = overview_of(out)
    assert found.cards[0].jpeg
    assert found.notes[1] == "Written after the prediction, and shown as they are now: 1 image."


def test_an_overview_of_many_images_names_its_choice(tmp_path: Path) -> None:
    out = predictions(tmp_path, 8)
    found = overview_of(out, most=3)
    assert [card.name for card in found.cards] == ["i5", "i6", "i7"]
    assert found.notes[0] == (
        "Shown are 3 of 8 images: those with the highest probability of malignancy."
    )
    with pytest.raises(DataError, match="contains no predictions of mel"):
        overview_of(out, diagnoses=["mel"])
    assert len(overview_of(out, diagnoses=["nv"]).cards) == 8


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("codes", [ISIC2018.codes, ()])
def test_it_makes_no_difference_in_which_pieces_a_table_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: tuple[str, ...], rows: int
) -> None:
    out = predictions(tmp_path, 8, codes)
    table = pq.read_table(out / "predictions.parquet")
    place = table.schema.get_field_index("prob_MEL")
    if place >= 0:  # ties, of which the first are taken
        field, values = table.schema.field(place), pa.array([0.1, 0.5, 0.5, 0.5, 0.5, 0.2, 0, 0.1])
        table = table.set_column(place, field, values.cast(field.type))
        pq.write_table(table, out / "predictions.parquet")
    whole = overview_of(out, most=3)
    if codes:
        assert [card.name for card in whole.cards] == ["i1", "i2", "i3"]
    monkeypatch.setattr(prediction_tables, "PIECE", rows)
    assert overview_of(out, most=3) == whole


def test_an_overview_of_masks_alone_has_no_diagnoses(tmp_path: Path) -> None:
    found = overview_of(predictions(tmp_path, 3, ()))
    assert [card.caption for card in found.cards] == ["<0>", "i1", "i2"]
    assert not found.classified
    write_overview(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    body = page.partition("</style>")[2].partition("<script>")[0]
    assert not [word for word in (">melanoma<", "Melanoma", "natural") if word in body]
    assert "33 %" in page


def test_a_page_of_a_thousand_images_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 40, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    write_png(tmp_path / "a.png", noise)  # worse than any skin
    out = predictions(tmp_path, 2)
    table = pq.read_table(out / "predictions.parquet")
    paths = pa.array([str(tmp_path / "a.png")] * 2)
    changed = table.set_column(1, table.schema.field(1), paths)
    pq.write_table(changed, out / "predictions.parquet")
    (one, _) = overview_of(out).cards
    assert len(one.jpeg) < 30_000


@pytest.mark.parametrize(("scale", "shown"), [(None, "283 × 283 px"), (0.02, "5.7 × 5.7 mm")])
def test_an_overview_shows_sizes_where_they_are_known(
    tmp_path: Path, scale: float | None, shown: str
) -> None:
    found = overview_of(predictions(tmp_path, scale=scale))
    assert [card.diameters for card in found.cards] == [shown, "cut by the border", *[shown] * 3]
    write_overview(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count(f"<dd>{shown}</dd>") == 4
    assert re.search(r"\bdd { [^}]*white-space: nowrap", page)  # values are not divided
    assert '<div class="answer"><dt>NV</dt><dd>90 %</dd></div>' in page
    assert '<div class="set"><dt>prediction set</dt><dd>NV MEL</dd></div>' in page
    assert page.count('data-asymmetry="0.02"') == 4
    assert page.count('data-asymmetry=""') == 1
    for name in ("asymmetry", "border irregularity", "colour variegation"):
        assert f"{name}, largest first" in page
