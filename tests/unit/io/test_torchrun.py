"""What torchrun's environment says about a process."""

from __future__ import annotations

import pytest

from naevus.errors import ConfigError
from naevus.io.torchrun import Launch, launched, speaks

WHOLE = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_process_without_torchrun_is_alone(environment: pytest.MonkeyPatch) -> None:
    assert launched() == Launch(0, 1, 0, 1)
    assert speaks()
    environment.setenv("MASTER_ADDR", "10.0.0.1")  # says nothing by itself
    assert launched() == Launch()


def test_a_process_knows_its_number_and_the_machines(environment: pytest.MonkeyPatch) -> None:
    for name, value in WHOLE.items():
        environment.setenv(name, value)
    launch = launched()
    assert launch == Launch(3, 4, 1, 2)
    assert launch.machines == 2
    assert not speaks()
    environment.setenv("RANK", "0")
    assert speaks()


@pytest.mark.parametrize("missing", [name for name in WHOLE if name != "TORCHELASTIC_RUN_ID"])
def test_an_incomplete_environment_is_one_line(
    missing: str, environment: pytest.MonkeyPatch
) -> None:
    for name, value in WHOLE.items():
        environment.setenv(name, "" if name == missing else value)
    with pytest.raises(ConfigError, match=f"incomplete: no {missing}; start .* torchrun") as raised:
        launched()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RANK", "first", "RANK is 'first'"),
        ("RANK", "4", "process 4 of 4"),
        ("RANK", "-1", "RANK is '-1'"),
        ("LOCAL_RANK", "2", "2 of 2 on this machine"),
        ("WORLD_SIZE", "1", "process 3 of 1"),
        ("LOCAL_WORLD_SIZE", "5", "1 of 5 on this machine"),
        ("LOCAL_WORLD_SIZE", "3", "4 processes are not 3 on every machine"),
    ],
)
def test_a_wrong_environment_is_refused(
    name: str, value: str, words: str, environment: pytest.MonkeyPatch
) -> None:
    for known, usual in WHOLE.items():
        environment.setenv(known, usual)
    environment.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        launched()
