"""The ``naevus`` command: its subcommands, and how failures are shown."""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from typing import Annotated, Any

import typer
from rich.text import Text

from naevus import __version__
from naevus.cli import challenge, data, demo, evaluate, export, info, predict, study, train
from naevus.cli.console import console, errors, print_anywhere
from naevus.cli.options import with_megapixels
from naevus.errors import NaevusError

FINDINGS, ERROR, INTERRUPTED = 1, 2, 130
_EXTRAS = {
    "matplotlib": "report",
    "nncf": "quantise",
    "onnxruntime": "onnxruntime",
    "openpyxl": "excel",
    "pi_heif": "heif",
    "sklearn": "evaluate",
    **dict.fromkeys(
        (
            *("lightning_fabric", "onnx", "onnxscript", "safetensors"),
            *("segmentation_models_pytorch", "timm", "torch", "torchvision"),
        ),
        "train",
    ),
}
"""The extra that brings a package, by the name that it is imported under."""

app = typer.Typer(
    name="naevus",
    help="Dermoscopic pictures to lesion masks, crops, diagnoses and scores. "
    "[bold]Research use only, never a diagnosis.[/]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"naevus {__version__}")
        raise typer.Exit


_debugging = ContextVar("debugging", default=False)


@app.callback()
def _common(
    version: Annotated[  # noqa: ARG001 (its callback prints it)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where a failure came from: naevus --debug check …")
    ] = False,
) -> None:
    _debugging.set(debug)


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn failures into one line and an exit code; with --debug, show where they came from."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()  # a full disk is told now, not passed over when all ends
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            _discard_output()
            with suppress(OSError):
                errors.print("error: what reads the output has ended; files may be missing")
            raise typer.Exit(ERROR) from None
        except KeyboardInterrupt:
            errors.print("interrupted; the same command goes on from here")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:  # noqa: BLE001 (whatever it is, one line)
            if _debugging.get():
                errors.print(traceback.format_exc(), end="")
            line = " ".join(str(_as_told(error)).splitlines())
            errors.print(Text.assemble(("error:", "bold red"), " ", line))
            try:
                sys.stdout.flush()
            except OSError:  # it was the output that failed, and would again when all ends
                _discard_output()
            raise typer.Exit(ERROR) from None

    return guarded


def _discard_output() -> None:
    """Send what is still to be printed nowhere: writing it when all ends would fail again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _as_told(error: Exception) -> NaevusError:
    """Return a failure in words that a user can act on, whatever raised it."""
    if isinstance(error, NaevusError):
        return error
    absent = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if absent in _EXTRAS:
        return NaevusError(
            f"this needs {absent}, which is absent",
            f'run pip install "naevus[{_EXTRAS[absent]}]"',
        )
    fewer = "close other programs, or use --threads 1 where the command has it"
    if isinstance(error, MemoryError):
        return NaevusError("there is not enough memory", fewer)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return NaevusError("the system gives no more threads", fewer)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return NaevusError(
            f"{where}{error.strerror}", "check the place, its rights and the space left"
        )
    return NaevusError(
        f"{type(error).__name__}: {error}",
        "this is a fault of naevus: please report it, with what naevus --debug shows",
    )


def _help(command: Callable[..., None]) -> str:
    """Return the docstring as help: prose fills the terminal's width, examples keep their lines."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.getdoc(command) or "")


_PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Look": {"demo": demo.demo, "show": data.show, "check": data.check},
    "Prepare": {"download": data.download, "folds": data.folds, "recipe": train.recipe},
    "Train and predict": {
        "train": train.train,
        "export": export.export,
        "predict": predict.predict,
        "evaluate": evaluate.evaluate,
        "compare": evaluate.compare,
        "ablate": study.ablate,
        "shortcuts": study.shortcuts,
        "report": evaluate.report,
        "model-card": info.model_card,
        "engines": info.engines,
    },
    "Submit": {"lint-submission": challenge.lint_submission},
}
_READING = {
    "demo", "show", "check", "folds", "train", "export", "predict", "evaluate", "ablate",
    "shortcuts", "report", "lint-submission",
}  # fmt: skip
"""The commands that read images."""

for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        _whole = with_megapixels(_command) if _name in _READING else _command
        app.command(_name, rich_help_panel=_panel, help=_help(_command))(_guarded(_whole))

_score = typer.Typer(
    no_args_is_help=True, help="Score a submission exactly as the ISIC 2018 challenge does."
)
for _command in (challenge.classification, with_megapixels(challenge.segmentation)):
    _score.command(_command.__name__, help=_help(_command))(_guarded(_command))
app.add_typer(_score, name="score", rich_help_panel="Submit")


def run() -> None:
    """Run the command; exit with 0 fine, 1 findings, 2 error or usage, 130 interrupted."""
    print_anywhere()
    app()
