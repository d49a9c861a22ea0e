"""The figures as a table for people."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench import audit_pages, fanout, status
from tests.bench.switches import MEANING

Figures = Mapping[str, Any]

_LABELS = {
    "gantry_seconds": "Gantry, click to page",
    "gantry_seconds_to_token": "Gantry, click to token",
    "bare_seconds": "bare script",
}
_OTHERS = {"status": status.lines, "fanout": fanout.lines, "audit": audit_pages.lines}
_NOTHING = {"gantry_seconds": 0.0, "bare_seconds": 0.0}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_bytes": memory,
        "load_before": round(os.getloadavg()[0], 2),
    }


def table(results: Figures) -> str:
    """All of it, line by line."""
    return "\n".join(_lines(results))


def _lines(results: Figures) -> Iterator[str]:
    facts = results["machine"]
    yield f"Machine: {facts['cores']} cores ({facts['processor']}), {facts['memory_bytes'] / 1e9:.0f} GB, load {facts['load_before']} before"
    if switches := results.get("switches"):
        yield from ("", *_switches(switches))
    if eta := results.get("eta"):
        yield from ("", *_eta(eta))
    for name, part in _OTHERS.items():
        if figures := results.get(name):
            yield from ("", *part(figures))


def _switches(figures: Figures) -> Iterator[str]:
    yield f"Cold switches: {figures['count']}, {figures['llama_server']}; medians (least, most)"
    for target, direction in figures["directions"].items():
        yield f"  to {target}, {direction['count']} times"
        for key, label in _LABELS.items():
            row = direction[key]
            yield f"    {label:24} {row['median']:7.3f} s  ({row['least']:.3f}, {row['most']:.3f})"
        yield f"    {'ratio':24} {direction['ratio']:7.3f}"
    both = figures["round_seconds"]
    yield f"  both together: {both['gantry']:.3f} s, bare {both['bare']:.3f} s"
    yield (
        f"  ratio {figures['ratio']:.3f} until the page says so, {figures['ratio_to_token']:.3f} until the first token, "
        f"with which the script ends; aim: {figures['aim']} or less"
    )
    yield from ("", *_stages(list(figures["directions"].values())))


def _stages(directions: list[Figures]) -> Iterator[str]:
    """Where the time goes: Gantry and bare of each direction side by side."""
    yield f"  {'milliseconds, medians':24}" + "".join(f" {'Gantry':>8} {'bare':>7} {'more':>7} " for _ in directions)
    names = dict.fromkeys(name for direction in directions for name in direction["stages"])
    for name in names:
        cells = [direction["stages"].get(name, _NOTHING) for direction in directions]
        yield f"  {name:24}" + "".join(map(_cell, cells)) + f"  {MEANING.get(name, '')}".rstrip()


def _cell(stage: Figures) -> str:
    gantry, bare = 1000 * stage["gantry_seconds"], 1000 * stage["bare_seconds"]
    return f" {gantry:8.1f} {bare:7.1f} {gantry - bare:+7.1f} "


def _eta(figures: Figures) -> Iterator[str]:
    yield (
        f"Time foretold at a quarter of a load: {figures['file_bytes'] / 1e9:.1f} GB without a memory map, "
        f"after {figures['learned_from']} loads, {figures['llama_server']}"
    )
    yield f"  {'page cache':12} {'loads':>6} {'seconds':>8} {'error, median':>14} {'worst':>8}   a quarter was done at"
    for name in ("warm", "cold", "all"):
        row = figures[name]
        yield (
            f"  {name:12} {row['count']:6} {row['load_seconds']:8.2f} {row['error_percent']:12.1f} % {row['worst_percent']:6.1f} %"
            f"   {row['quarter_at_percent']:.0f} % of the time"
        )
    yield f"  aim: under {figures['aim_percent']:.0f} % in the median"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
