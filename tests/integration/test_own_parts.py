"""A package outside naevus adds a loss, network, augmentation, metric and layout; none of it runs
except in training.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import naevus
from naevus.cli.main import app
from naevus.datasets.layouts import load
from naevus.io.settings import parse_setting
from naevus.runs.recipe import MONITORED, load_recipe
from naevus.runs.run import Run
from tests.helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

PACKAGE = ROOT / "tests" / "data" / "outside_package"
PAGE = ROOT / "docs" / "how-to" / "own-parts.md"
QUICK = (
    "epochs=1",
    "batch_size=8",
    "sizes=[[0,32]]",
    "data.cache_size=32",
    "workers=0",
    "data.validation_fraction=0.3",
)


def call(*words: object) -> Result:
    environment = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


class Untouchable:
    """Fails where something imports the outside package."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "outside_package":
            pytest.fail(f"{name} was imported")


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("outside_package")]:
        del sys.modules[name]


def recipes() -> list[str]:
    """The recipes on the page: of a segmenter and of a classifier."""
    blocks: list[str] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [block for block in blocks if block.startswith("metrics = ")]


@pytest.fixture(scope="module")
def package() -> Iterator[None]:
    """The outside package, as if it were installed."""
    sys.path.insert(0, str(PACKAGE))
    yield
    sys.path.remove(str(PACKAGE))
    forget()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, synthetic_images: Path) -> Path:
    """Images in the layout that only the outside package reads."""
    folder = tmp_path_factory.mktemp("data") / "cases"
    for row in load(synthetic_images).part("task1").images().rows():
        assert row.path
        assert row.mask_path
        case = folder / row.image_id
        case.mkdir(parents=True)
        shutil.copyfile(row.path, case / "photo.png")
        shutil.copyfile(row.mask_path, case / "lesion.png")
        (case / "diagnosis.txt").write_text("NV\n")
    return folder


@pytest.fixture(scope="module")
def run(
    package: None, cases: Path, synthetic_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with the recipe of the page, on images in naevus's own layout."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    block, _ = recipes()
    (folder / "own.toml").write_text(block)
    words = ["train", "segmentation", synthetic_images, "--recipe", folder / "own.toml"]
    words += ["--fold", 0, "--out", folder / "run"]
    result = call(*words, *(word for each in QUICK for word in ("--set", each)))
    assert result.exit_code == 0, result.output
    place = folder / "run"
    assert result.output.endswith(
        "not trained: 4 folds; without --fold all are trained\n"
        f"To evaluate it: naevus evaluate {place}\nTo look at it: naevus report {place}\n"
        f"To use it: naevus predict IMAGES --bundle {place}\n"
    )
    named = [line for line in result.stdout.splitlines() if line.startswith("runs code of: ")]
    assert [line.split()[3] for line in named] == [
        "outside_package.nets:Small",
        "outside_package.losses:Tversky",
        "outside_package.augment:Vignette",
        "outside_package.metrics:area_error",
    ]
    assert all("(outside-package 1.0, file SHA-256 " in line for line in named)
    return folder / "run"


class StubOfWandB(ModuleType):
    """Notes what the page's callback gives to ``wandb``."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.noted: list[tuple[str, Any]] = []

    def init(self, **settings: Any) -> StubOfWandB:
        self.noted.append(("init", settings))
        return self

    def log(self, row: dict[str, Any]) -> None:
        self.noted.append(("log", row))

    def finish(self) -> None:
        self.noted.append(("finish", None))


@pytest.fixture(scope="module")
def classified(
    package: None, synthetic_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, StubOfWandB]:
    """A run of a classifier of own parts, followed by the page's callback."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("classified")
    page = PAGE.read_text()
    _, recipe = recipes()
    (folder / "own.toml").write_text('task = "classification"\n' + recipe)
    (code,) = re.findall(r"```python\n(import naevus\nimport wandb\n.*?)\nrun = ", page, re.DOTALL)
    stub, names = StubOfWandB(), dict[str, Any]()
    settings = dict(parse_setting(text) for text in QUICK) | {"epochs": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", stub)
        exec(compile(code, str(PAGE), "exec"), names)
        naevus.train(
            load_recipe(folder / "own.toml", overrides=settings),
            synthetic_images,
            out=folder / "run",
            fold=0,
            callbacks=[names["WandB"]()],
        )
    return folder / "run", stub


@pytest.mark.slow
def test_an_own_backbone_loss_and_metric_train_a_classifier_and_stop_it(
    classified: tuple[Path, StubOfWandB],
) -> None:
    run, _ = classified
    history = pd.read_csv(run / "fold-0" / "history.csv")
    assert history["val_top_2"].between(0, 1).all()
    assert {f"val_{name}" for name in MONITORED["classification"]} <= set(history.columns)
    best = int(history["val_top_2"].to_numpy().argmax())
    log = (run / "train.log").read_text()
    value = history["val_top_2"].max()
    assert f"weights of epoch {best}, the best: validation top_2 {value:.4f} (select = " in log
    assert len(history) == min(3, best + 2)
    result = call("evaluate", run)
    assert result.exit_code == 0, result.output
    assert "balanced accuracy" in result.output


@pytest.mark.slow
def test_the_callback_of_the_page_logs_settings_and_epochs(
    classified: tuple[Path, StubOfWandB],
) -> None:
    run, stub = classified
    history = pd.read_csv(run / "fold-0" / "history.csv")
    kinds = [kind for kind, _ in stub.noted]
    assert kinds == ["init", *["log"] * len(history), "finish"]
    assert stub.noted[0][1]["config"]["loss"]["kind"] == "outside_package.losses:Poly1"
    logged = [row["val_top_2"] for kind, row in stub.noted if kind == "log"]
    assert logged == pytest.approx(history["val_top_2"].tolist())


@pytest.mark.slow
def test_own_parts_are_trained_with_and_recorded(run: Path) -> None:
    opened = Run.open(run)
    assert opened.finished() == [0]
    assert opened.recipe.own_network == "outside_package.nets:Small"
    history = pd.read_csv(run / "fold-0" / "history.csv")
    assert history["val_area_error"].between(0, 1).all()
    assert {f"val_{name}" for name in MONITORED["segmentation"]} <= set(history.columns)
    versions = json.loads((run / "environment.json").read_text())
    assert versions["outside_package.losses:Tversky"].startswith("outside-package 1.0")


@pytest.mark.slow
def test_nothing_but_training_imports_own_parts(
    run: Path, synthetic_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget()
    monkeypatch.setattr(sys, "meta_path", [Untouchable(), *sys.meta_path])
    image = next((synthetic_images / "ISIC2018_Task1-2_Training_Input").iterdir())
    for words in (
        ("evaluate", run),
        ("info", run),
        ("report", run, "--no-thumbnails", "--out", tmp_path / "report"),
        ("predict", image, "--bundle", run, "--threads", 1, "--out", tmp_path / "predicted"),
    ):
        result = call(*words)
        assert result.exit_code == 0, f"{words}: {result.output}"
    refused = call("export", run, "--out", tmp_path / "bundle")
    assert refused.exit_code == 2
    assert "names code outside naevus, outside_package.nets:Small" in refused.stderr
    assert "--trust" in refused.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_export_runs_an_own_network_if_it_is_trusted(run: Path, tmp_path: Path) -> None:
    result = call("export", run, "--out", tmp_path / "bundle", "--trust")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "bundle" / "bundle.json").exists()


def test_a_layout_of_another_package_is_read_by_every_command(
    package: None, cases: Path, tmp_path: Path
) -> None:
    dataset = load(cases)
    assert dataset.layout == "cases"
    assert len(dataset.with_masks()) == len(dataset) == len(list(cases.iterdir()))
    assert load(cases, layout="cases").ids == dataset.ids
    result = call("data", "check", cases)
    assert "layout cases" in result.output
    folds = call("data", "split", cases, "--k", 2, "--no-duplicates", "--out", tmp_path / "f.csv")
    assert folds.exit_code == 0, folds.output


def test_a_package_whose_layout_fails_is_named(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget()
    broken = tmp_path / "site"
    shutil.copytree(PACKAGE, broken)
    (broken / "outside_package" / "layouts.py").write_text("NAME = 'cases'\n")
    monkeypatch.syspath_prepend(str(broken))
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(PACKAGE)])
    line = call("data", "check", cases).stderr
    assert "the layout cases of outside-package has no DESCRIPTION, matches, read" in line
    forget()


BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
NAMES = [re.findall(r"^(?:class|def) (\w+)", block, re.MULTILINE)[0] for block in BLOCKS]


@pytest.mark.parametrize("block", BLOCKS, ids=NAMES)
def test_a_block_of_the_page_is_a_module_by_itself(
    block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that it names is undefined, also within its functions; its code is the package's."""
    words = (sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", "-")
    done = subprocess.run(words, check=False, input=block, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    monkeypatch.setitem(sys.modules, "wandb", StubOfWandB())
    monkeypatch.setattr(naevus, "train", lambda *_, **__: "trained")
    exec(compile(block, str(PAGE), "exec"), {"__name__": "copied"})
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    code = re.sub(r"^(?:import|from) .*\n|\A\n+", "", block, flags=re.MULTILINE).lstrip("\n")
    assert code in source or "wandb" in block


def test_the_page_names_the_package_s_entry_point() -> None:
    points = (PACKAGE / "outside_package-1.0.dist-info" / "entry_points.txt").read_text()
    assert "cases = outside_package.layouts" in points
    assert 'cases = "outside_package.layouts"' in PAGE.read_text()
    assert len(BLOCKS) == 8
