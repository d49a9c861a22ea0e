"""A real Valkey for tests, started as `manage.py up` starts it."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gantry.bringup import broker
from tests.functional.stack import wait_until


@dataclass(frozen=True)
class RedisServer:
    """A running server; `url` as REDIS_URL has it."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=10)


def start_redis(folder: Path) -> RedisServer:
    """Start one that keeps its data in `folder`, and return once it answers."""
    socket = Path(tempfile.mkdtemp(prefix="gantry-redis-")) / "valkey.sock"  # a socket's path has to be short
    command = broker.embedded_command(socket, folder / "data", folder / "valkey.log")
    server = RedisServer(f"unix://{socket}", subprocess.Popen(command))
    try:
        wait_until(lambda: broker.answers(server.url), 10, lambda: "Valkey does not answer")
    except BaseException:
        server.stop()
        raise
    return server
