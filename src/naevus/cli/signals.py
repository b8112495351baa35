"""Ctrl-C and SIGTERM: a command ends within two seconds, and the same command resumes it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn

from naevus.io.torchrun import speaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_GRACE_S: Final = 1.2
"""Time for a command to end by itself; libraries notice signals only between their steps."""

_WORDS: Final = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_SHOW_CURSOR: Final = "\x1b[?25h"  # progress bars hide it


class _State:
    """The signal that is to end this command, whether it was raised and reported, and the note."""

    signal: signal.Signals | None = None
    raised = False
    reported = False
    note: Callable[[], str] | None = None


_state = _State()


def exit_code() -> int:
    """Return the exit code of a command that was ended: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_state.signal or signal.SIGINT)


def is_ending() -> bool:
    """Return whether a signal is to end this command."""
    return _state.signal is not None


def line() -> str:
    """Return the line about the end of this command; an empty one if it is printed already."""
    if _state.reported or not speaks():
        return ""
    _state.reported = True
    parts = [_WORDS[_state.signal or signal.SIGINT]]
    with suppress(OSError):
        parts += filter(None, [_state.note and _state.note()])
    return "; ".join([*parts, "run the same command again to resume"])


@contextmanager
def noting(note: Callable[[], str]) -> Iterator[None]:
    """Say in the line what is lost or kept if a signal ends the command in the block.

    Args:
        note: Returns it, or an empty text; called as the command ends, maybe by another thread.
    """
    before, _state.note = _state.note, note
    try:
        yield
    finally:
        if not is_ending():  # otherwise the line is still to come
            _state.note = before


def end_soon() -> None:
    """Raise `KeyboardInterrupt` at Ctrl-C and SIGTERM, and end the process shortly afterwards.

    If the command has not ended by itself after a moment, or at a second signal, the process exits
    at once. That loses nothing: whatever is written appears under its name when it is complete.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    with suppress(OSError, ValueError):
        for number in _WORDS:
            signal.signal(number, _raise)
        if os.name != "nt":
            # The bytes arrive even while a library does not let the handler run.
            arriving, leaving = os.pipe()
            os.set_blocking(leaving, False)
            signal.set_wakeup_fd(leaving, warn_on_full_buffer=False)
            threading.Thread(target=_wait, args=(arriving,), daemon=True).start()


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    if _state.raised:
        _exit()
    _state.raised, _state.signal = True, signal.Signals(number)
    raise KeyboardInterrupt


def _wait(arriving: int) -> None:
    """Exit after a moment once a signal has arrived, or at the second one."""
    import select

    while True:
        number = os.read(arriving, 1)[0]
        if number in _WORDS:
            break
    _state.signal = signal.Signals(number)
    select.select([arriving], [], [], _GRACE_S)
    _exit()


def _exit() -> NoReturn:
    # Not through Python's streams: another thread may hold their locks.
    cursor, last = _SHOW_CURSOR if os.isatty(2) else "", line()
    with suppress(OSError):
        os.write(2, f"{cursor}{last}\n".encode() if last else b"")
    os._exit(exit_code())
