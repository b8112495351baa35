"""Starting, extending and stopping a run with `naevus.training.job.train`, on tiny networks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch

from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load
from naevus.errors import RunError, WeightsError
from naevus.runs.images import dataset_of
from naevus.runs.manifest import trial_notes
from naevus.runs.run import Run
from naevus.training import train as training_job
from naevus.training.job import train
from naevus.training.loop import Trainer, load_tensors

if TYPE_CHECKING:
    from pathlib import Path


SETTINGS: dict[str, Any] = {
    "task": "segmentation",
    "epochs": 2,
    "batch_size": 8,
    "sizes": [[0, 32]],
    "workers": 0,
    "data.parts": ["task1"],
    "data.cache_size": 32,
    "network.pretrained": "none",
    "network.architecture": "plain-unet",
    "network.decoder": {"channels": [4, 8]},
    "optimiser.schedule": "constant",
    "optimiser.warm_up": 0.5,
}


@pytest.fixture(autouse=True)
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finish folds without ONNX graphs, which take most of the time."""
    torch.set_num_threads(1)

    def finish(run: Run, fold: int, *_: object) -> None:
        table = pd.DataFrame({"image_id": run.folds.held_out(fold)[:1], "jaccard": 0.5})
        table.to_parquet(run.fold_folder(fold) / "oof.parquet", index=False)

    monkeypatch.setattr(training_job, "export_fold", lambda *_: None)
    monkeypatch.setattr(training_job, "predict_held_out", finish)


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_tensors(run.fold_folder(0) / "weights.safetensors")[0]


def test_an_extended_run_ends_like_one_that_was_as_long_from_the_start(
    synthetic: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    train(SETTINGS, synthetic, out=tmp_path / "run", fold=0, cache=cache)
    longer = SETTINGS | {"epochs": 4}
    for _ in range(2):  # the second time resumes the finished run
        extended = train(longer, synthetic, out=tmp_path / "run", fold=0, cache=cache)
        assert (extended.recipe.epochs, extended.recipe.optimiser.warm_up) == (4, 0.25)
    history = extended.history([0])
    assert history is not None
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    whole = train(
        longer | {"optimiser.warm_up": 0.25}, synthetic, out=tmp_path / "b", fold=0, cache=cache
    )
    assert whole.recipe.fingerprint() == extended.recipe.fingerprint()
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(extended)[name]), name


def test_a_stop_before_the_last_epoch_is_logged_with_the_weights_that_are_used(
    synthetic: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("naevus"), "propagate", True)
    scores = iter([0.5, 0.9, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(
        "naevus.training.tasks.SegmentationTask.inspect", lambda *_: {"score": next(scores)}
    )
    settings = SETTINGS | {"epochs": 6, "early_stopping": 2, "optimiser.schedule": "cosine"}
    settings["optimiser.warm_up"] = 0.1
    with caplog.at_level(logging.INFO, "naevus"):
        run = train(settings, synthetic, out=tmp_path / "run", fold=0)
    assert (
        "fold 0: stopped early after 4 of 6 epochs: the validation jaccard has not risen since "
        'epoch 1; weights of epoch 1, the best: validation jaccard 0.9000 (select = "best")'
    ) in caplog.messages
    best = load_tensors(run.fold_folder(0) / "best.safetensors")[0]
    assert all(torch.equal(best[name], tensor) for name, tensor in weights_of(run).items())
    patient = settings | {"early_stopping": 3}
    with caplog.at_level(logging.INFO, "naevus"):
        run = train(patient, synthetic, out=tmp_path / "run", fold=0)
    assert "fold 0: stopped early after 5 of 6 epochs" in caplog.text


def test_a_start_without_weights_does_not_block_what_its_message_proposes(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object) -> None:
        raise WeightsError("no pretrained weights for resnet18", "use `--pretrained none`")

    monkeypatch.setattr("naevus.training.networks.pretrained", absent)
    unet = {
        "network.architecture": "unet",
        "network.encoder": "resnet18",
        "network.pretrained": "imagenet",
        "network.decoder": {},
    }
    with pytest.raises(WeightsError):
        train(SETTINGS | unet, synthetic, out=tmp_path / "run", fold=0)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(Trainer, "fit", lambda *_: None)
    monkeypatch.setattr(Trainer, "ending", lambda *_: "")
    run = train(
        SETTINGS | unet | {"network.pretrained": "none"}, synthetic, out=tmp_path / "run", fold=0
    )
    assert run.finished() == [0]
    with pytest.raises(RunError, match=r'network\.pretrained is "none" there, not "imagenet"'):
        train(SETTINGS | unet, synthetic, out=tmp_path / "run", fold=0)


def test_a_limit_is_recorded_and_never_taken_for_a_full_run(
    synthetic: Path, tmp_path: Path
) -> None:
    limited = SETTINGS | {"data.limit": 40, "epochs": 1}
    run = train(limited, synthetic, out=tmp_path / "run", fold=0)
    assert run.inputs["images"] == 40
    assert str(run).endswith("40 training images of ISIC2018, limited to 40 for a trial")
    assert Run.open(run.folder).recipe.data.limit == 40
    dataset = dataset_of(run)
    assert dataset is not None
    assert sorted(dataset.ids) == sorted(run.folds.table["image_id"])
    (note,) = trial_notes([run])
    assert note.startswith("run: trained for a trial on at most 40 images")
    with pytest.raises(RunError, match=r"data\.limit is 40 there, not 0"):
        train(SETTINGS | {"epochs": 1}, synthetic, out=run.folder, fold=0)
    folds = tmp_path / "folds.csv"
    whole = make_folds(load(synthetic).part("task1"), k=3)
    whole.write(folds)
    given = train(limited, synthetic, out=tmp_path / "given", folds=folds, fold=1)
    assert given.folds.sha256 == whole.sha256
    assert given.inputs["images"] == 40
