"""Shards of predictions, joined: as one process writes them, or refused with the reason."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.evaluate import report
from naevus.cli.gather import gather
from naevus.cli.predict import predict
from naevus.errors import BundleError, ConfigError, NaevusError, RunError
from naevus.images.read import write_png
from naevus.inference import gather as gathering
from naevus.inference.gather import gather_predictions
from naevus.inference.options import OutputOptions
from naevus.inference.predictor import load
from naevus.runs.gather import RECORD as GATHERED
from naevus.runs.prediction_tables import _open_part, _write_part
from naevus.runs.predictions import SETTINGS
from naevus.runs.shards import RECORD
from tests.helpers.onnx_graphs import CONFORMAL, classification_bundle, segmentation_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

COUNT = 11
SHARDS = 3
OWN = {RECORD, GATHERED, ".lock", ".lesions.csv"}


def call(command: Any, *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(map(str, arguments)))


def draw(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        image = rng.integers(100, 250, (40, 60, 3), dtype=np.uint8)
        image[10:30, 10:40] = 40
        write_png(folder / f"arm{number // 4}" / f"p{number:02d}.png", image)
    (folder / "arm1" / "p04.png").write_bytes(b"no image")
    (folder / "list.txt").write_text(f"{folder}\n{folder / 'absent.png'}\n{folder / 'gone.png'}\n")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, bundles, the folder of one process and those of three shards."""
    root = tmp_path_factory.mktemp("shards")
    draw(root / "images")
    segmentation_bundle(root / "s")
    classification_bundle(root / "c", crop_mode="crop", conformal=CONFORMAL, explained=True)
    predicted(root, "whole")
    for number in range(1, SHARDS + 1):
        predicted(root, f"{number}", "--shard", f"{number}/{SHARDS}")
    return root


def predicted(root: Path, out: str, *more: object) -> None:
    result = call(
        predict, "--input-list", root / "images" / "list.txt", "--bundle", root / "s", "--bundle",
        root / "c", "--threads", 1, "--engine", "openvino", "--precision", "fp32", "--batch-size",
        2, "--group-by", "folder", "--embeddings", "--heatmaps", "--xlsx", "--submission",
        "--out", root / out, *more,
    )  # fmt: skip
    assert result.exit_code == 1, result.output  # one image is damaged


def copies(made: Path, folder: Path) -> list[Path]:
    """Copies of the shards that a test may change."""
    return [shutil.copytree(made / f"{n}", folder / f"{n}") for n in range(1, SHARDS + 1)]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in OWN
    }


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_shards_joined_are_what_one_process_writes(made: Path, tmp_path: Path) -> None:
    shards = [made / "2", made / "1", made / "3"]
    result = call(gather, *shards, "--out", tmp_path / "out")
    assert result.exit_code == 1, result.output
    assert "10 images predicted" in result.output
    found, whole = contents(tmp_path / "out"), contents(made / "whole")
    assert found.keys() == whole.keys()
    # A workbook holds the time of its making.
    different = [name for name in whole if found[name] != whole[name]]
    assert different in ([], ["predictions.xlsx"])
    pd.testing.assert_frame_equal(
        pd.read_excel(tmp_path / "out" / "predictions.xlsx"),
        pd.read_excel(made / "whole" / "predictions.xlsx"),
    )
    result = call(report, tmp_path / "out")
    assert result.exit_code == 0, result.output


def test_python_predicts_shards_too(made: Path, tmp_path: Path) -> None:
    bundles, outputs = [made / "s", made / "c"], OutputOptions(batch_size=2, crops=False)
    predictor = load(bundles, engine="openvino", precision="fp32", threads=1)
    predictor.to_folder(made / "images", tmp_path / "whole", outputs)
    shards = [tmp_path / f"{number}" for number in range(1, SHARDS + 1)]
    for number, folder in enumerate(shards, 1):
        shard = f"{number}/{SHARDS}"
        predictor.to_folder(made / "images", folder, outputs, shard=shard)
    result = gather_predictions(shards, tmp_path / "out")
    assert (result.predicted, len(result.failed)) == (COUNT - 1, 1)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_each_image_is_in_one_shard_and_no_shard_has_lesions_of_its_own(made: Path) -> None:
    tables = [pd.read_parquet(made / f"{n}" / "predictions.parquet") for n in range(1, SHARDS + 1)]
    assert [len(table) for table in tables] == [4, 4, 2]
    for number in range(1, SHARDS + 1):
        assert not (made / f"{number}" / "lesions.parquet").exists()
        assert not (made / f"{number}" / "submission.csv").exists()
    whole = pd.read_parquet(made / "whole" / "predictions.parquet")
    assert whole["lesion_id"].str.fullmatch("arm[012]").all()
    pd.testing.assert_series_equal(
        pd.concat(tables).sort_values("image_id", ignore_index=True)["lesion_id"],
        whole["lesion_id"],
    )


def test_the_same_command_again_does_nothing(made: Path, tmp_path: Path) -> None:
    shards = [made / f"{number}" for number in range(1, SHARDS + 1)]
    out = tmp_path / "out"
    first = gather_predictions(shards, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = gather_predictions(shards[::-1], out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert (first.reused, again.reused) == (0, COUNT - 1)
    assert (again.failed, again.files, again.lesions) == (first.failed, first.files, first.lesions)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_killed_job_goes_on_and_leaves_nothing_half_made(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [made / f"{number}" for number in range(1, SHARDS + 1)]
    steps = ("_link", "write_sheets", "write_lesions", "flush_together")
    for step in steps:
        with monkeypatch.context() as patch:
            patch.setattr(gathering, step, killed_at(getattr(gathering, step), 5))
            with pytest.raises(KeyboardInterrupt):
                gather_predictions(shards, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    gather_predictions(shards, tmp_path / "out")
    assert contents(tmp_path / "out").keys() == contents(made / "whole").keys()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def killed_at(function: Any, number: int) -> Any:
    """Return a function that is interrupted at its n-th call, or at its first if there is one."""
    calls = 0

    def killed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number or function.__name__ != "_link":
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return killed


def test_a_missing_shard_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="2 of 3 shards are missing: 1/3, 3/3"):
        gather_predictions([made / "2"], tmp_path / "out")


def test_a_shard_that_is_given_twice_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is shard 2/3 like"):
        gather_predictions([made / n for n in "1223"], tmp_path / "out")


def test_predictions_without_shard_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a shard of predictions"):
        gather_predictions([made / "whole"], tmp_path / "out")
    with pytest.raises(RunError, match="does not exist"):
        gather_predictions([made / "absent"], tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "values", "problem"),
    [
        (SETTINGS, {"batch": 3}, "batch is 2 there, not 3"),
        (SETTINGS, {"heatmaps": False}, "heatmaps is true there, not false"),
        (SETTINGS, {"segmenter": {"bundles": ["other"]}}, "segmenter.bundles is"),
        (RECORD, {"naevus_version": "0.0"}, 'naevus_version is .* there, not "0.0"'),
        (RECORD, {"submission": None}, 'submission is "balanced" there, not null'),
        (RECORD, {"shard": "2/4"}, "is of two shards at once"),
        (RECORD, {"files": ["mask", "../x"]}, "'../x' is no kind of file"),
        (RECORD, {"files": ["attribute ../x"]}, "'attribute ../x' is no kind of file"),
        (RECORD, {"images": 12}, "is of a list of 12 images, and .* of another list of 11"),
        (RECORD, {"ids_sha256": "x"}, "is of a list of 11 images, and .* of another list of 11"),
    ],
)
def test_shards_of_other_jobs_are_refused(
    file: str, values: dict[str, Any], problem: str, made: Path, tmp_path: Path
) -> None:
    shards = copies(made, tmp_path)
    change(shards[1] / file, **values)
    with pytest.raises(RunError, match=problem):
        gather_predictions(shards, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "usual", "other"), [("precision", "fp32", "bf16"), ("device", "cpu", "cuda:0")]
)
def test_shards_computed_in_another_way_are_listed_and_joined(
    made: Path, tmp_path: Path, name: str, usual: str, other: str
) -> None:
    shards = copies(made, tmp_path)
    settings = json.loads((shards[2] / SETTINGS).read_text())
    change(shards[2] / SETTINGS, classifier=settings["classifier"] | {name: other})
    result = call(gather, *shards, "--out", tmp_path / "out")
    line = f"classifier.{name} differs between shards: {usual} in 2 shards (1, 2); {other} in 1 "
    assert line in " ".join(result.output.split())
    found = json.loads((tmp_path / "out" / SETTINGS).read_text())
    assert found["computed"] == {f"classifier.{name}": {usual: [1, 2], other: [3]}}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda shard: next(shard.glob("masks/*.png")).unlink(), "is missing or has changed"),
        (lambda shard: next(shard.glob("crops/*.png")).write_bytes(b""), "is missing or has"),
        (lambda shard: shutil.rmtree(shard / ".parts"), "with the hidden folder .parts"),
        (lambda shard: next(shard.glob(".parts/*.part")).write_bytes(b"no"), "is damaged; copy it"),
        (lambda shard: next(shard.glob(".parts/*.part")).unlink(), "of the 11 images"),
        (lambda shard: (shard / RECORD).unlink(), "is not a finished shard"),
    ],
)
def test_damaged_shards_are_refused(damage: Any, problem: str, made: Path, tmp_path: Path) -> None:
    shards = copies(made, tmp_path)
    damage(shards[0])
    with pytest.raises(RunError, match=problem):
        gather_predictions(shards, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../mine", "/mine", "..\\mine", ".mine", "a\nb", ""])
def test_ids_that_lead_elsewhere_are_refused(name: str, made: Path, tmp_path: Path) -> None:
    shards = copies(made, tmp_path)
    mine = tmp_path / "mine_segmentation.png"
    mine.write_bytes(b"mine")
    part = next((shards[0] / ".parts").glob("*.part"))
    with _open_part(part) as file:
        table = file.read()
    ids = table.column("image_id").to_pylist()
    noted = {
        key: value.replace(json.dumps(ids[0]).encode(), json.dumps(name).encode())
        for key, value in table.schema.metadata.items()
    }
    column = pa.array([name, *ids[1:]])
    place = table.schema.get_field_index("image_id")
    changed = table.set_column(place, table.schema.field(place), column)
    _write_part(part, changed.replace_schema_metadata(noted))
    with pytest.raises(RunError, match=r"\.part: the id '.*' (has|starts|is) .*; gather only"):
        gather_predictions(shards, tmp_path / "out")
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / "out").exists()


def test_an_image_in_two_shards_is_refused(made: Path, tmp_path: Path) -> None:
    shards = copies(made, tmp_path)
    part = next((shards[0] / ".parts").glob("*.part"))
    shutil.copy(part, shards[1] / ".parts")
    with pytest.raises(RunError, match=r"image p0\d is not where it should be: .* overlap"):
        gather_predictions(shards, tmp_path / "out")


def test_other_files_are_not_overwritten(made: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(NaevusError, match="holds other files, such as mine"):
        gather_predictions([made / n for n in "123"], tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_folder_of_one_shard_takes_no_other(made: Path, tmp_path: Path) -> None:
    shard = shutil.copytree(made / "1", tmp_path / "1")
    result = call(
        predict, made / "images", "--bundle", made / "s", "--out", shard, "--shard", "2/3"
    )
    assert isinstance(result.exception, NaevusError)
    assert "made with other settings" in str(result.exception)


def test_more_shards_than_batches_leave_some_empty(made: Path, tmp_path: Path) -> None:
    shards = [tmp_path / f"{number}" for number in range(1, 4)]
    for number, out in enumerate(shards, 1):
        result = call(
            predict, made / "images" / "arm0", "--bundle", made / "s", "--threads", 1,
            "--engine", "openvino", "--precision", "fp32", "--out", out, "--shard", f"{number}/3",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    assert gather_predictions(shards, tmp_path / "out").predicted == 4


def test_lesions_need_their_bundle(made: Path, tmp_path: Path) -> None:
    shards = copies(made, tmp_path)
    for shard in shards:
        moved = dict.fromkeys(json.loads((shard / RECORD).read_text())["bundles"], "gone")
        change(shard / RECORD, bundles=moved)
    with pytest.raises(BundleError, match="which is not at gone; name it with --bundle"):
        gather_predictions(shards, tmp_path / "out")
    found = gather_predictions(shards, tmp_path / "out", bundles=[made / "c"])
    assert found.lesions is not None
    lesions = pd.read_parquet(tmp_path / "out" / "lesions.parquet")
    assert lesions["prediction_set"].notna().all()


def test_a_wrong_part_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    result = call(predict, tmp_path / "absent", "--shard", "3/2")
    assert isinstance(result.exception, ConfigError)
