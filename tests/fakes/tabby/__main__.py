"""The double as a program: prints its address and keys, then serves until it is told to end."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence

from tests.fakes.tabby.library import FakeModel
from tests.fakes.tabby.server import TabbyDouble


def demo_models(module_seconds: float) -> dict[str, FakeModel]:
    """Models for trying pages by hand, with one that fails and one that does not fit."""
    return {
        "Qwen3-8B-exl3-4.0bpw": FakeModel(modules=39, module_seconds=module_seconds, max_seq_len=8192),
        "Mistral-Small-24B-exl3-3.5bpw": FakeModel(modules=43, module_seconds=2 * module_seconds, max_seq_len=8192),
        "Gemma-3-12B-exl3-4.0bpw": FakeModel(
            modules=51, module_seconds=module_seconds, vision_modules=30, max_seq_len=8192
        ),
        "Llama-3.2-1B-exl3-8.0bpw": FakeModel(modules=19, module_seconds=module_seconds / 4, max_seq_len=8192),
        "Damaged-7B-exl3": FakeModel(modules=35, module_seconds=module_seconds, fails_at=20),
        "TooLarge-70B-exl3": FakeModel(
            modules=83,
            module_seconds=module_seconds,
            fails_at=30,
            error="Insufficient VRAM in split for model and cache",
        ),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.tabby", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 chooses one (default)")
    parser.add_argument("--module-seconds", type=float, default=0.15, help="how long a module takes to load")
    parser.add_argument("--token-seconds", type=float, default=0.04, help="from one word of an answer to the next")
    parser.add_argument("--api-key", default="demo-api-key")
    parser.add_argument("--admin-key", default="demo-admin-key")
    options = parser.parse_args(arguments)
    double = TabbyDouble(models=demo_models(options.module_seconds), port=options.port)
    double.engine.unload_seconds, double.engine.finish_seconds = 0.5, 0.8
    double.api.token_seconds = options.token_seconds
    double.keys.api_keys, double.keys.admin_key = [options.api_key], options.admin_key
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with double:
        print(f"TabbyAPI double: {double.url}", flush=True)
        over.wait()


if __name__ == "__main__":
    main()
