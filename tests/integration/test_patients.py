"""Groups that are patients: every command says so, and images count for their own values."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import naevus
from naevus.cli.demo import _table
from naevus.cli.main import app
from naevus.evaluation.ablation import ablation
from naevus.evaluation.intervals import Interval
from naevus.images.read import write_png
from naevus.taxonomy import ISIC2018
from tests.helpers.html_page import HtmlPage
from tests.helpers.tables import classification_run

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.runs.run import Run
    from naevus.types import Unit

PATIENTS = 60
SITES = ("face", "left forearm", "back")


def write_patients(folder: Path, *, unknown: int = 0) -> pd.DataFrame:
    """Write a data set of patients with two to four images of different sites, and its table."""
    rng = np.random.default_rng(3)
    rows = []
    for patient in range(PATIENTS):
        for number in range(2 + patient % 3):
            name = f"p{patient:02}-{number}.png"
            write_png(folder / name, rng.integers(0, 255, (24, 24, 3), np.uint8))
            rows.append(
                {
                    "image": name,
                    "diagnosis": ("melanoma", "nevus")[(patient + number) % 2],
                    "patient_id": None if patient < unknown else f"P{patient}",
                    "anatom_site": SITES[number % len(SITES)],
                    "sex": ("female", "male")[patient % 2],
                }
            )
    table = pd.DataFrame(rows)
    table.to_csv(folder / "labels.csv", index=False)
    return table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients") / "photos"
    write_patients(folder)
    return folder


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return tuple(classification_run(folder / f"r{n}", data, n, parts=()) for n in range(2))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def predictions(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicted")
    table = pd.read_csv(data / "labels.csv")
    natural = np.random.default_rng(0).dirichlet(np.ones(7), len(table))
    columns = {
        f"{kind}_{code}": natural[:, place]
        for kind in ("prob", "balanced_prob")
        for place, code in enumerate(ISIC2018.codes)
    }
    ids = table["image"].str.removesuffix(".png")
    pd.DataFrame({"image_id": ids, **columns}).to_parquet(folder / "predictions.parquet")
    return folder


def output_of(*words: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in words], env={"COLUMNS": "150"})
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


def speaks_of_patients(text: str) -> None:
    assert re.search(r"\b60 patients", text), text
    lesions = r"\d lesions?\b|by lesion\b|per lesion|(^|[│|┃])\s*lesions\b"
    wrong = re.search(lesions, text, re.MULTILINE)
    assert wrong is None, text[max(wrong.start() - 200, 0) : wrong.end() + 50]


@pytest.mark.parametrize("moved", [False, True])
def test_evaluate_and_compare_speak_of_patients(
    runs: tuple[Run, Run], data: Path, moved: bool
) -> None:
    runs[0].join()
    if moved:
        data.rename(data.parent / "moved")
    try:
        speaks_of_patients(output_of("evaluate", runs[0].folder))
        speaks_of_patients(output_of("evaluate", *(run.folder for run in runs)))
        speaks_of_patients(output_of("evaluate", runs[0].folder / "oof.parquet"))
        speaks_of_patients(output_of("compare", *(run.folder for run in runs)))
        speaks_of_patients(output_of("compare", *(run.folder for run in runs), "--ensemble"))
        found = json.loads(output_of("evaluate", runs[0].folder, "--json"))
    finally:
        if moved:
            (data.parent / "moved").rename(data)
    assert found["subject"]["unit"] == "patient"
    assert found["classification"]["lesions"] is None


@pytest.mark.parametrize("unit", ["patient", "lesion", "group"])
def test_an_ablation_says_what_its_groups_are(unit: Unit, runs: tuple[Run, Run]) -> None:
    pytest.importorskip("torch")
    from naevus.workflows.ablation import budget_of

    tables = {run.folder.name: run.predictions() for run in runs}
    budget = budget_of(runs[0].recipe, 0, unit)
    abouts = dict.fromkeys(tables, "another seed")
    found = ablation("What helps", budget, tables, abouts, "r0", unit=unit)
    by = re.findall(r"intervals by (\w+)|paired by (\w+)", found.markdown())
    assert {each for one in by for each in one if each} == {unit}
    assert found.table()[f"{unit}s"].max() == PATIENTS
    assert [arm["unit"] for arm in found.to_dict()["arms"]] == [unit]


@pytest.mark.parametrize("unit", ["patient", "lesion", "group"])
def test_the_demo_s_scores_say_what_their_groups_are(unit: Unit) -> None:
    table = _table({"accuracy": (Interval(0.5, 0.4, 0.6), "2 images")}, unit)
    assert [column.header for column in table.columns][1] == f"value (95 % interval by {unit})"


def test_a_plot_speaks_of_patients(runs: tuple[Run, Run]) -> None:
    pytest.importorskip("matplotlib")
    runs[0].join()
    (axes,) = naevus.evaluate(runs[0].folder).plot().axes
    assert axes.get_xlabel() == "with 95 % intervals by patient"


def test_predictions_are_evaluated_by_patient(predictions: Path, data: Path) -> None:
    speaks_of_patients(output_of("evaluate", predictions, "--data", data))


def test_reports_speak_of_patients(
    runs: tuple[Run, Run], predictions: Path, data: Path, tmp_path: Path
) -> None:
    output_of("report", runs[0].folder, "--out", tmp_path / "run")
    output_of("report", predictions, "--data", data, "--out", tmp_path / "predictions")
    for name in ("run", "predictions"):
        page = HtmlPage((tmp_path / name / "report.html").read_text())
        speaks_of_patients(page.text)
        assert "A group is a patient, with all lesions." in page.text
        heads = pd.read_csv(tmp_path / name / "tables" / "class-counts.csv").columns
        assert "patients" in heads
        assert "lesions" not in heads


def test_an_image_is_in_the_subgroup_of_its_own_site(
    predictions: Path, data: Path, tmp_path: Path
) -> None:
    output_of("report", predictions, "--data", data, "--out", tmp_path)
    groups = pd.read_csv(tmp_path / "tables" / "subgroups.csv").set_index("value")
    images, patients = groups["images"].to_dict(), groups["patients"].to_dict()
    table = pd.read_csv(data / "labels.csv")
    for site, rows in table.groupby("anatom_site"):
        assert images[site] == len(rows)
        assert patients[site] == rows["patient_id"].nunique()


def test_data_sets_are_counted_in_images_lesions_and_patients(data: Path, tmp_path: Path) -> None:
    checked = output_of("data", "check", data)
    assert "of 60 patients" in checked
    assert "few lesions" not in checked
    output_of("data", "show", data, "--out", tmp_path / "sheet.png")


def test_patients_that_are_known_in_part_are_called_groups(
    predictions: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    table = write_patients(folder, unknown=5)
    alone = int(table["patient_id"].isna().sum())
    text = output_of("evaluate", predictions, "--data", folder)
    assert f"{len(table)} images of {PATIENTS - 5 + alone} groups" in text
    assert not re.search(r"\d (lesions|patients)\b", text)
