"""A llama-server that is none of Gantry's business, and folders that claim otherwise."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from gantry.runtimes.llama_binary import ask_build, find_binary
from gantry.runtimes.llama_shim import read_boot_id
from gantry.runtimes.process import ProcessMark
from tests.chaos.reality import mark_of
from tests.functional.stack import free_port


@dataclass
class Decoy:
    """A running server of somebody else's. SIGTERM would end it, so whether it lives tells whether it was signalled."""

    process: subprocess.Popen[bytes]
    mark: ProcessMark
    port: int

    @classmethod
    def start(cls, model: Path, folder: Path) -> Decoy:
        """Start it with a model file, in a folder of its own."""
        build = ask_build(find_binary(None))
        folder.mkdir()
        port = free_port()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [build.path, "--model", model, "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "256"],
                env=build.environment(),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        mark = mark_of(process.pid)
        assert mark
        return cls(process, mark, port)

    @property
    def is_untouched(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None and self.mark.is_alive

    def plant_claim(self, state_dir: Path) -> str:
        """A folder of an instance that ran under the decoy's number before it had it. Gives the instance's id."""
        folder = state_dir / str(uuid.uuid4())
        folder.mkdir(mode=0o700, parents=True)
        earlier = {"pid": self.mark.pid, "start": self.mark.start - 1}
        note = {"boot_id": read_boot_id(), "child": earlier, "keeper": earlier, "started_at": time.time() - 60}
        spec = {"instance_id": folder.name, "model_id": "gone", "is_embedding": False, "port": self.port, "argv": []}
        (folder / "api_key").write_text("none")
        (folder / "process.json").write_text(json.dumps(note))
        (folder / "instance.json").write_text(json.dumps({**spec, "created_at": time.time() - 60}))
        return folder.name

    def end(self) -> None:
        """End it; only here."""
        self.process.kill()
        self.process.wait()
