"""The whole command: exit codes, failures in one line, help with working examples."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from naevus import __version__
from naevus.cli.main import app, run
from naevus.errors import NaevusError
from naevus.images.read import write_png
from naevus.io.extras import how_to_install
from naevus.runs.recipe import load_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

COMMANDS = (
    "predict",
    "train",
    "evaluate",
    "compare",
    "report",
    "export",
    "gather",
    "reproduce",
    "demo",
    "info",
    "data check",
    "data show",
    "data split",
    "data download",
    "data synthetic",
    "challenge score",
    "challenge lint",
    "study ablate",
    "study shortcuts",
)


CROPS = ("--set", "data.crop_mode=crop")


def call(*words: object, columns: int = 80) -> Result:
    environment = {"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def error_of(result: Result) -> str:
    """Return the one-line error of a user's mistake."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_the_version_is_printed() -> None:
    result = call("--version")
    assert result.exit_code == 0
    assert result.stdout == f"naevus {__version__}\n"


def test_a_printed_recipe_can_be_loaded(tmp_path: Path) -> None:
    for task in ("segmentation", "classification"):
        result = call("train", task, "--show-recipe")
        assert result.exit_code == 0
        written = tmp_path / f"{task}.toml"
        written.write_text(result.stdout)
        assert load_recipe(written) == load_recipe(None, task)
        assert call("train", task, "--show-recipe", "--recipe", written).stdout == result.stdout


def test_findings_exit_with_1(synthetic: Path, tmp_path: Path) -> None:
    data = tmp_path / "NV"
    data.mkdir()
    images = sorted((synthetic / "ISIC2018_Task3_Training_Input").iterdir())
    for image in images[:3]:
        (data / image.name).write_bytes(image.read_bytes())
    fine = call("data", "check", tmp_path, "--out", tmp_path / "out")
    assert fine.exit_code == 0, fine.output
    whole = images[0].read_bytes()
    (data / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    found = call("data", "check", tmp_path, "--out", tmp_path / "out")
    assert found.exit_code == 1
    assert "cut" in found.stdout


def test_an_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("naevus.datasets.layouts.load", interrupted)
    result = call("data", "check", tmp_path)
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr


def test_markup_in_a_message_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(*_: object, **__: object) -> NoReturn:
        raise NaevusError("[bold]odd[/].csv: is odd", "mend it")

    monkeypatch.setattr("naevus.datasets.layouts.load", failing)
    assert error_of(call("data", "check", tmp_path)) == "error: [bold]odd[/].csv: is odd; mend it\n"


def test_a_missing_extra_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> Any:
        def load(*_: object, **__: object) -> NoReturn:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return load

    monkeypatch.setattr("naevus.datasets.layouts.load", absent("torch"))
    assert how_to_install("train") in error_of(call("data", "check", tmp_path))
    monkeypatch.setattr("naevus.datasets.layouts.load", absent("another"))
    assert "ModuleNotFoundError: No module named 'another'; this is a bug in naevus" in error_of(
        call("data", "check", tmp_path)
    )


@pytest.mark.parametrize(
    "words",
    [
        ("data", "check", "nowhere"),
        ("data", "show", "nowhere"),
        ("data", "split", "nowhere", "--out", "folds.csv"),
        ("demo", "--data", "nowhere", "--out", "demo"),
        ("train", "segmentation", "nowhere", "--out", "run"),
        ("predict", "nowhere", "--out", "out"),
        ("predict", ".", "--split", "test", "--bundle", "nowhere", "--out", "out"),
        ("evaluate", "nowhere"),
        ("train", "segmentation", "--show-recipe", "--recipe", "nowhere"),
        ("challenge", "score", "nowhere", "nowhere"),
        ("challenge", "lint", "nowhere"),
        ("train", "classification", "DATA", "--out", "run", "--masks", "nowhere", *CROPS),
        ("train", "classification", "DATA", "--out", "run", "--copies", "nowhere"),
        ("train", "segmentation", "DATA", "--out", "run", "--init-from", "nowhere"),
    ],
    ids=" ".join,
)
def test_a_missing_path_is_named(
    words: tuple[str, ...], synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = error_of(call(*(str(synthetic) if word == "DATA" else word for word in words)))
    assert "nowhere" in line or "no known layout" in line
    assert "; " in line or "the known ones are" in line, "says what to do"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("train", "lesions", "DATA"), "'TASK': 'lesions' is not one of 'segmentation', 'classif"),
        (("predict", "x", "--tta", "x"), "'--tta': 'x' is not one of 'none', 'half-turn', 'flips'"),
        (("data", "check", "x", "--taxonomy", "x"), "'--taxonomy': 'x' is not one of 'auto'"),
        (("data", "split", "x", "--k", "0", "--out", "y"), "'--k': must be greater than or equal"),
        (("data", "split", "x", "--k", "a", "--out", "y"), "'--k': must be a valid integer"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_in_plain_words(words: tuple[str, ...], named: str) -> None:
    result = call(*words, columns=200)
    assert result.exit_code == 2
    assert f"Invalid value for {named}" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "words", [("evaluate",), ("report",), ("info",), ("compare", "nowhere")], ids=" ".join
)
def test_absent_results_do_not_exist(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(call(*words, "nowhere")).startswith("error: nowhere does not exist; name ")


@pytest.mark.parametrize(
    "words",
    [
        ("data", "check"),
        ("data", "show"),
        ("data", "split", "--out", "folds.csv"),
        ("demo", "--out", "demo", "--data"),
    ],
    ids=" ".join,
)
def test_an_empty_folder_fits_no_layout(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    line = error_of(call(*words, "empty"))
    assert line.startswith("error: empty: no known layout of images fits")
    for name in ("isic2018", "ham10000", "manifest"):
        assert name in line


@pytest.mark.parametrize(
    "words",
    [
        ["train", "segmentation", "{synthetic}"],
        ["study", "ablate", "{tmp}/plan.toml", "{synthetic}"],
        ["predict", "{synthetic}/ISIC2018_Task3_Training_Input"],
        ["demo"],
    ],
    ids=lambda words: words[0],
)
def test_results_are_not_mixed_with_other_files(
    words: list[str], synthetic: Path, tmp_path: Path
) -> None:
    out = tmp_path / "photographs"
    out.mkdir()
    (out / "mole.jpg").write_bytes(b"a photograph")
    given = [word.format(synthetic=synthetic, tmp=tmp_path) for word in words]
    assert error_of(call(*given, "--out", out)) == (
        f"error: {out} holds other files, such as mole.jpg; choose another --out\n"
    )
    assert [each.name for each in out.iterdir()] == ["mole.jpg"]


def test_empty_folders_of_results_are_reported(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty: no images there" in error_of(call("predict", empty, "--out", tmp_path / "out"))
    assert "neither a run nor predictions" in error_of(call("evaluate", empty))
    linted = call("challenge", "lint", empty, columns=200)
    assert linted.exit_code == 1
    assert "no masks" in linted.stdout


def test_an_unknown_layout_is_reported(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("nothing")
    line = error_of(call("data", "check", tmp_path))
    assert "no known layout" in line
    assert "manifest.csv" in line


def test_corrupt_files_are_named(tmp_path: Path) -> None:
    recipe = tmp_path / "my.toml"
    recipe.write_text("epochs = = 3\n")
    line = error_of(call("train", "segmentation", "--show-recipe", "--recipe", recipe))
    assert "my.toml: is not TOML" in line
    assert "correct the file" in line

    table = tmp_path / "truth.csv"
    table.write_bytes(b"\xff\xfe\x00\x01" * 40)
    line = error_of(call("challenge", "score", table, table))
    assert "truth.csv" in line

    folds = tmp_path / "folds.csv"
    folds.write_text("image_id,group_id,fold\np0,g0,0\np0,g0,1\n")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,diagnosis\np0.png,NV\np1.png,MEL\n")
    for name in ("p0.png", "p1.png"):
        (tmp_path / name).write_bytes(b"x")
    words = ("train", "classification", tmp_path, "--out", tmp_path / "run", "--folds", folds)
    line = error_of(call(*words))
    assert "folds.csv: p0 occurs twice" in line

    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{")
    line = error_of(call("predict", manifest, "--bundle", bundle, "--out", tmp_path / "out"))
    assert "bundle.json" in line
    assert not (tmp_path / "out").exists()


def test_masks_of_other_images_are_reported(synthetic: Path, tmp_path: Path) -> None:
    """Otherwise every crop would silently be a centre square."""
    (tmp_path / "ISIC_0_segmentation.png").touch()
    words = ("train", "classification", synthetic, "--out", tmp_path / "run", "--masks", tmp_path)
    assert "holds no mask of any image" in error_of(call(*words, *CROPS))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "output"),
    [
        ("nonsense=1", "nonsense: there is no such setting"),
        ("optimiser.speed=1", "optimiser.speed: there is no such setting"),
        ("optimiser=fast", "optimiser"),
        ("epochs.first=2", "epochs"),
        ("task.first=2", "task is a setting, not a table"),
        ("epochs=none", "epochs"),
        ("epochs=0", "epochs"),
        ("epochs", "has no value"),
        ("=3", "no such setting"),
    ],
)
def test_an_unknown_setting_is_reported(setting: str, output: str, tmp_path: Path) -> None:
    words = ("train", "segmentation", tmp_path, "--out", tmp_path / "run", "--set", setting)
    line = error_of(call(*words))
    assert output in line
    assert "--show-recipe" in line or "NAME=VALUE" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("data", "check"),
        ("data", "check", ".", "--nonsense"),
        ("train", "both", ".", "--out", "run"),
        ("data", "split", ".", "--k", "0", "--out", "folds.csv"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert "Usage: naevus" in result.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("predict", "x", "--only", "masks", "--only", "crops"), "'--only': given twice, masks"),
        (("predict", "x", "--out=a", "--threads", "1", "--out", "b"), "'--out': given twice, a"),
        (("data", "split", "x", "--k", "2", "--k", "3", "--k", "2"), "'--k': given twice, 2 and 3"),
        (("evaluate", "x", "--data", "a", "y", "--data", "b"), "'--data': given twice, a and b"),
        (("predict", "x", "--megapixels", "9", "--megapixels", "8"), "'--megapixels': given twice"),
    ],
    ids=str,
)
def test_an_option_with_two_values_is_refused(words: tuple[str, ...], named: str) -> None:
    result = call(*words, columns=200)
    assert result.exit_code == 2
    assert f"Invalid value for {named}" in " ".join(result.stderr.split())


def test_an_option_may_repeat_its_value_or_take_several(tmp_path: Path) -> None:
    several = ("--set", "epochs=5", "--set", "seed=3")
    result = call("train", "segmentation", *several, "--show-recipe")
    assert "epochs = 5" in result.output
    assert "seed = 3" in result.output
    same = call("info", "nowhere", *(("--out", str(tmp_path / "a")) * 2))
    assert "nowhere" in error_of(same)


def test_usage_names_the_command_however_it_was_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["__main__.py", "nonsense"])
    with pytest.raises(SystemExit):
        run()
    assert "Usage: naevus [" in capsys.readouterr().err


def examples_of(name: str) -> list[str]:
    """The examples in a command's help, each on its own line and indented; two come first."""
    result = call(*name.split(), "--help")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.partition("╭")[0].splitlines()]
    lines = [re.sub(r"^torchrun .* -m (?=naevus)", "", line) for line in lines]
    begin = lines.index("Examples:")
    assert len([line for line in lines[:begin] if line]) == 2, "usage, then what it is for"
    first = lines[begin + 1 : lines.index("", begin)]
    assert len(first) >= 2, f"naevus {name} has no two examples"
    for line in first:
        assert re.match(r"naevus ", line), f"not an example, or wrapped: {line!r}"
    return [line for line in lines if line.startswith("naevus ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples_that_parse(name: str) -> None:
    root: Any = get_command(app)
    for example in examples_of(name):
        assert example.startswith(f"naevus {name}")
        words = shlex.split(example.partition(" > ")[0])[1:]
        command, context = root, typer.Context(root)
        while hasattr(command, "commands"):
            command = command.get_command(context, words.pop(0))
        assert command.make_context(name, words).params or not command.params


def test_the_help_fits_a_terminal() -> None:
    lines = call("--help").stdout.splitlines()
    assert len(lines) <= 34
    assert max(map(len, lines)) <= 80
    for name in COMMANDS:
        about: Any = get_command(app)
        group, _, inner = name.partition(" ")
        about = about.commands[group]
        about = about.commands[inner] if inner else about
        assert len((about.help or "").partition("\n")[0]) <= 80, name


def test_every_command_is_tested_for_its_help() -> None:
    root: Any = get_command(app)
    found = {
        f"{name} {inner}".strip()
        for name, command in root.commands.items()
        for inner in getattr(command, "commands", {"": None})
    }
    assert found == set(COMMANDS)


def test_every_command_that_reads_images_has_the_option_its_message_names(tmp_path: Path) -> None:
    none = {"compare", "gather", "info", "data download", "data synthetic"}
    for command in COMMANDS:
        reported = call(*command.split(), "--help", columns=120)
        assert ("--megapixels" in reported.output) == (command not in none), command
    for number, name in enumerate(("nevus", "melanoma")):
        write_png(tmp_path / name / "a.png", np.full((130, 90 + number, 3), 99, np.uint8))
    reported = call("data", "show", tmp_path, "--out", tmp_path / "sheet.png", "--megapixels", 0.01)
    assert "limit of 10,000; raise the limit with --megapixels 1" in " ".join(
        reported.output.split()
    )
