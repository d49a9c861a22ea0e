"""Gantry with a TabbyAPI that needs no GPU: starts the double and `manage.py up` beside it, and ends both together.

What follows on the command line goes to `up`: `python -m tests.fakes.tabby.demo --demo` adds the two real models.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from gantry.env import BASE_DIR
from tests.fakes.tabby.__main__ import demo_models
from tests.fakes.tabby.server import TabbyDouble

API_KEY, ADMIN_KEY = "demo-api-key", "demo-admin-key"
MODULE_SECONDS, TOKEN_SECONDS = 0.15, 0.04
DEFAULTS = {
    "GANTRY_MEMORY": "fixed:24GiB",  # as on the GPU that is not there
    # Apart from a real installation, whose own TabbyAPI would be forgotten for the double.
    "GANTRY_DATA_DIR": str(BASE_DIR / "var" / "demo-tabby"),
}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    """Run until Gantry has ended, by Ctrl-C or by itself. Returns its exit code."""
    with demo_double() as double:
        print(f"Started a stand-in for TabbyAPI at {double.url}", flush=True)
        print(
            f'Unload behind Gantry\'s back: curl -X POST -H "X-Admin-Key: {ADMIN_KEY}" {double.url}/v1/model/unload',
            flush=True,
        )
        return _run([sys.executable, "manage.py", "up", *arguments], environment_for(double))


def demo_double() -> TabbyDouble:
    """The double with the models of the demo, at a speed that can be watched."""
    double = TabbyDouble(models=demo_models(MODULE_SECONDS))
    double.engine.unload_seconds, double.engine.finish_seconds = 0.5, 0.8
    double.api.token_seconds = TOKEN_SECONDS
    double.keys.api_keys, double.keys.admin_key = [API_KEY], ADMIN_KEY
    return double


def environment_for(double: TabbyDouble) -> dict[str, str]:
    """This process's environment with the double in it; what the operator chose wins over the demo's defaults."""
    reached = {"TABBY_HOST": double.url, "TABBY_API_KEY": double.api_key, "TABBY_ADMIN_KEY": double.admin_key}
    return {**DEFAULTS, **os.environ, **reached}


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command to its end and pass on every signal, also those that come before it runs."""
    asked: list[int] = []
    for number in _SIGNALS:
        signal.signal(number, lambda number, _frame: asked.append(number))
    # In a session of its own: a terminal would send Ctrl-C to both, and it would arrive twice.
    process = subprocess.Popen(command, cwd=BASE_DIR, env=environment, start_new_session=True)
    for number in _SIGNALS:
        signal.signal(number, lambda number, _frame: process.send_signal(number))
    for early in asked:
        process.send_signal(early)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
