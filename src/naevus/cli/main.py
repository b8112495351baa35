"""The ``naevus`` command: its subcommands, one-line errors and exit codes."""

from __future__ import annotations

import inspect
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from copy import copy
from functools import wraps
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup, TyperOption

from naevus import __version__
from naevus.cli import (
    challenge,
    data,
    demo,
    evaluate,
    export,
    gather,
    info,
    predict,
    reproduce,
    signals,
    study,
    train,
)
from naevus.cli.console import console, discard, errors, print_anywhere, warnings_on_screen
from naevus.cli.options import with_megapixels
from naevus.errors import NaevusError
from naevus.io.extras import EXTRAS, how_to_install
from naevus.io.torchrun import launched, speaks

FINDINGS, ERROR = 1, 2


class _Commands(TyperGroup):
    """A group of commands that says in plain words which value is wrong."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:  # Typer passes on what Pydantic says
            plain = error.message.removeprefix("Value error, ")
            error.message = re.sub(r"^Input should be ", "must be ", plain)
            raise


class _Command(TyperCommand):
    """A command that refuses two values of an option that takes one: the last would win."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        parser = self.make_parser(ctx)
        single = [
            each
            for each in self.params
            if isinstance(each, TyperOption) and not (each.multiple or each.is_flag or each.count)
        ]
        for each in single:
            every = copy(each)
            every.multiple = True
            every.add_to_parser(parser, ctx)
        given, _, _ = parser.parse_args(args=list(args))
        for each in single:
            values = list(dict.fromkeys(given.get(str(each.name), ())))
            if len(values) > 1:
                raise typer.BadParameter(
                    f"given twice, {values[0]} and {values[1]}; leave out one", ctx, each
                )
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="naevus",
    cls=_Commands,
    help="Dermoscopic images to lesion masks, crops, class probabilities and reports. Start with "
    "[bold]naevus predict photo.jpg[/]. Research use only, never a diagnosis.",
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
        bool,
        typer.Option("--debug", help="Show a traceback when a command fails."),
    ] = False,
) -> None:
    _debugging.set(debug)


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn failures into one line and an exit code; with --debug, show the traceback."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            if command.__name__ != train.train.__name__:
                _refuse_torchrun()
            with warnings_on_screen() if speaks() else nullcontext():
                command(*args, **kwargs)
            sys.stdout.flush()  # reports a full disk here; at interpreter exit it would be lost
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            errors.print(signals.line())
            raise typer.Exit(signals.exit_code()) from None
        except Exception as error:  # noqa: BLE001 (every failure becomes one line)
            _let_the_first_speak()
            if _debugging.get():
                errors.print(traceback.format_exc(), end="")
            line = " ".join(str(_as_naevus_error(error)).splitlines())
            errors.print(Text.assemble(("error:", "bold red"), " ", line))
            try:
                sys.stdout.flush()
            except OSError:  # the output itself failed, and would fail again at exit
                discard(sys.stdout)
            raise typer.Exit(ERROR) from None

    return guarded


def _refuse_torchrun() -> None:
    if launched().world > 1:
        raise NaevusError(
            "torchrun starts several processes, but only naevus train divides its work",
            "start this command without torchrun",
        )


_FIRST_SPEAKS_S = 10.0
"""Time for torchrun to end this process because the first one has failed in the same way."""


def _let_the_first_speak() -> None:
    """Wait under torchrun: if all processes fail alike, one line is enough."""
    if not speaks():
        try:
            time.sleep(_FIRST_SPEAKS_S)
        except KeyboardInterrupt:
            raise typer.Exit(signals.exit_code()) from None


def _as_naevus_error(error: Exception) -> NaevusError:
    """Translate any failure into an error with a remedy."""
    if isinstance(error, NaevusError):
        return error
    absent = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = next((name for name, modules in EXTRAS.items() if absent in modules), None)
    if extra is not None:
        return NaevusError(
            f"this needs {absent}, which is not installed",
            how_to_install(extra),
        )
    fewer = "close other programs, or use --threads 1 where the command has it"
    if _is_lack_of_memory(error):
        return NaevusError("out of memory", fewer)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return NaevusError("the system cannot start more threads", fewer)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return NaevusError(
            f"{where}{error.strerror}", "check the path, its permissions and the free space"
        )
    return NaevusError(
        f"{type(error).__name__}: {error}",
        "this is a bug in naevus: please report it with the output of naevus --debug",
    )


def _is_lack_of_memory(error: Exception) -> bool:
    """Return whether Python, torch, OpenCV or an engine got no memory; most raise their own."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(each in text for each in _NO_MEMORY)


_NO_MEMORY = (
    "bad_alloc", "bad allocation", "can't allocate memory", "cannot allocate memory",
    "insufficient memory", "out of memory", "failed to allocate",
)  # fmt: skip


def _help(command: Callable[..., None]) -> str:
    """Return the docstring as help: prose fills the terminal's width, examples keep their lines."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.getdoc(command) or "")


_READING = {
    predict.predict, train.train, evaluate.evaluate, evaluate.report, export.export, demo.demo,
    data.check, data.show, data.split, reproduce.reproduce, challenge.score, challenge.lint,
    study.ablate, study.shortcuts,
}  # fmt: skip
"""The commands that read images."""


def _add(group: typer.Typer, *commands: Callable[..., None], panel: str | None = None) -> None:
    for command in commands:
        whole = with_megapixels(command) if command in _READING else command
        add = group.command(
            command.__name__, cls=_Command, rich_help_panel=panel, help=_help(command)
        )
        add(_guarded(whole))


def _group(name: str, about: str, *commands: Callable[..., None]) -> None:
    group = typer.Typer(no_args_is_help=True, help=about)
    _add(group, *commands)
    app.add_typer(group, name=name, rich_help_panel="Groups of commands")


_add(
    app,
    predict.predict,
    train.train,
    evaluate.evaluate,
    evaluate.compare,
    evaluate.report,
    export.export,
    gather.gather,
    reproduce.reproduce,
    demo.demo,
    info.info,
    panel="Commands",
)
_group(
    "data",
    "Check, show, split, download and generate data sets.",
    *(data.check, data.show, data.split, data.download, data.synthetic),
)
_group(
    "challenge",
    "Score and check submissions to ISIC 2018.",
    *(challenge.score, challenge.lint),
)
_group(
    "study",
    "Compare variations of a recipe; measure shortcuts.",
    *(study.ablate, study.shortcuts),
)


def run() -> None:
    """Run the command; exit with 0 (success), 1 (findings), 2 (error), 130 or 143 (interrupted)."""
    print_anywhere()
    try:
        app(prog_name="naevus")  # also for ``python -m naevus``
    except (SystemExit, KeyboardInterrupt) as end:
        if not signals.is_ending() or (isinstance(end, SystemExit) and not end.code):
            raise
        # An interruption before or after a command's own code, which Typer reports otherwise.
        if line := signals.line():
            errors.print(line)
        raise SystemExit(signals.exit_code()) from None
