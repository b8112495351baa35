"""``python -m naevus`` is the ``naevus`` command."""

from naevus.cli.main import run

run()
