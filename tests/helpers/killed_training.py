"""Train with the real command in a child process that may kill itself.

Run as a module, it imports everything once, then reads one request per line (JSON: ``arguments``,
``log``, ``kill``), runs it in a fork, and prints the child's exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from functools import reduce
from importlib import import_module
from itertools import count
from typing import Any, NoReturn

from naevus.cli.main import run
from naevus.training import train

assert train  # what is imported before the fork is imported once


def arm(function: str, number: int, *, after: bool) -> None:
    """Kill this process at the ``number``-th call of ``package.module:name``.

    Args:
        function: Such as ``naevus.training.loop:Trainer._step``.
        number: From 1.
        after: Whether that call is completed first.
    """
    module, _, names = function.partition(":")
    *owners, name = names.split(".")
    owner: Any = reduce(getattr, owners, import_module(module))
    original = getattr(owner, name)
    calls = count(1)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        last = next(calls) == number
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def carry_out(request: dict[str, Any]) -> NoReturn:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request["kill"]:
        arm(**request["kill"])
    sys.argv = ["naevus", *request["arguments"]]
    code = 70
    try:
        run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (the child must not go on as its parent)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            carry_out(json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
