"""How fast the audit review's pages are with a long log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.bench.callers import spread
from tests.bench.many_rows import ask, long_log, session_cookie

TIMES, QUICK_TIMES = 20, 3
LIST = "admin/models_admin/auditentry/"
_MIDDLE = """
from models_admin.models import AuditHead
print(AuditHead.current().entry_id // 2)
"""


def measure(folder: Path, rows: int, times: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Open each page so many times. Gives the figures."""
    with long_log(folder, rows, say) as (stack, _, count):
        found = ask(stack, _MIDDLE)
        with httpx.Client(base_url=stack.url, trust_env=False, timeout=120) as client:
            client.headers["Cookie"] = session_cookie(stack)
            pages: list[dict[str, Any]] = []
            for name, address in _pages(found).items():
                pages.append({"name": name, "seconds": spread([_open(client, address) for _ in range(times)])})
                say(f"{name}: median {1000 * pages[-1]['seconds']['median']:.0f} ms")
    return {"rows": count, "times": times, "pages": pages}


def _pages(middle: int) -> dict[str, str]:
    """Name -> address."""
    queries: dict[str, dict[str, str]] = {
        "list": {},
        "list, in the middle": {"below": str(middle)},
        "one person": {"who": "ann"},
        "one model": {"model": "SmolLM2"},
        "what happened": {"what": "job:end"},
        "outcome that is rare": {"outcome": "failed"},
        "one day": {"since": "2026-01-02", "until": "2026-01-02"},
        "all of these": {"who": "ann", "what": "job:end", "model": "SmolLM2", "outcome": "succeeded"},
        "words that are common": {"q": "smol"},
        "words that are rare": {"q": "192.0.2"},
        "words that are nowhere": {"q": "nowhere at all"},
    }
    lists = {name: f"{LIST}?{urlencode(query)}" for name, query in queries.items()}
    return {**lists, "one story": f"{LIST}{middle}/change/"}


def _open(client: httpx.Client, address: str) -> float:
    began = time.perf_counter()
    answer = client.get(address)
    took = time.perf_counter() - began
    assert answer.status_code == 200, (address, answer.status_code, answer.headers.get("Location"))
    return took


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures for people."""
    yield f"Audit review: {figures['rows']:,} entries, each page {figures['times']} times"
    yield f"  {'page':24} {'median':>9} {'p99':>9} {'most':>9}"
    for page in figures["pages"]:
        took = page["seconds"]
        yield f"  {page['name']:24} {1000 * took['median']:6.0f} ms {1000 * took['p99']:6.0f} ms {1000 * took['most']:6.0f} ms"
