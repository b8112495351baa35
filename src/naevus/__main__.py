"""``python -m naevus``, and what the ``naevus`` command starts."""

import sys


def run() -> None:
    """Run the command; an interruption while it is being loaded is one, too."""
    from naevus.cli import signals  # noqa: PLC0415 (as below)

    signals.end_soon()
    try:
        from naevus.cli.main import run as run_command  # noqa: PLC0415 (what may be interrupted)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before anything was done\n")
        sys.exit(signals.exit_code())
    run_command()


if __name__ == "__main__":
    run()
