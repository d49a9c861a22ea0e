"""How fast the status is told to whoever polls it, with a long audit log behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench.callers import Caller, at_full_speed, spread, steadily
from tests.bench.many_rows import MODELS, long_log, session_cookie

PATHS = ("v1/models/status", "api/llm-status")
FLOOR = "healthz"  # does nothing: what the web server and this machine take for any request
PER_SECOND, SECONDS, QUICK_SECONDS = 50.0, 20.0, 0.6
AT_ONCE = 8
AIM_SECONDS = 0.020  # of the 99th percentile


def measure(folder: Path, rows: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Call each path with a key and with a session. Gives the figures."""
    with long_log(folder, rows, say) as (stack, token, count):
        credentials = {"key": {"Authorization": f"Bearer {token}"}, "session": {"Cookie": session_cookie(stack)}}
        floor = asyncio.run(_case(f"{stack.url}{FLOOR}", {}, seconds))
        cases = [{"path": f"/{FLOOR}", "with": "nobody", **floor}]
        for path in PATHS:
            for name, headers in credentials.items():
                case = asyncio.run(_case(f"{stack.url}{path}", headers, seconds))
                cases.append({"path": f"/{path}", "with": name, **case})
                say(f"/{path} with a {name}: p99 {1000 * case['seconds']['p99']:.1f} ms")
    return {"rows": count, "models": MODELS, "per_second": PER_SECOND, "aim_seconds": AIM_SECONDS, "cases": cases}


async def _case(url: str, headers: Mapping[str, str], seconds: float) -> dict[str, Any]:
    caller = Caller(url, headers)
    await steadily(caller, PER_SECOND, min(1.0, seconds))  # connections are made, and the cache begins to be kept
    took = await steadily(caller, PER_SECOND, seconds)
    per_second = await at_full_speed(caller, AT_ONCE, seconds / 4)
    size = len(await caller.call())
    await caller.close()
    return {"seconds": spread(took), "most_per_second": round(per_second, 1), "bytes": size}


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures for people."""
    yield f"Status: {figures['per_second']:.0f} requests a second, {figures['models']} models, {figures['rows']:,} audit entries"
    yield f"  {'':28} {'median':>9} {'p99':>9} {'most':>9}   at full speed ({AT_ONCE} at once)"
    for case in figures["cases"]:
        took = case["seconds"]
        yield (
            f"  {case['path'] + ', ' + case['with']:28} {1000 * took['median']:6.1f} ms {1000 * took['p99']:6.1f} ms "
            f"{1000 * took['most']:6.1f} ms   {case['most_per_second']:.0f} a second"
        )
    yield f"  aim: p99 under {1000 * figures['aim_seconds']:.0f} ms"
