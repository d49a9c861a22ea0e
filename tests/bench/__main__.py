"""Measures Gantry: `python -m tests.bench [--quick] [--json FILE]`, or `make bench`. Takes about ten minutes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench import audit_pages, fanout, foretelling, many_rows, report, status, switches

SWITCHES, QUICK_SWITCHES = 20, 3
LARGE_BYTES, QUICK_BYTES = 2_000_000_000, 50_000_000
RUNS = 5  # loads with a warm and with a cold page cache each


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print the table, and give what was measured."""
    options = _options(arguments)
    results: dict[str, Any] = {"machine": report.machine()}
    with TemporaryDirectory(prefix="gantry-bench-") as folder:
        for name in options.only:
            results[name] = _PARTS[name](Path(folder), quick=options.quick)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(report.table(results))
    return results


def _switches(folder: Path, *, quick: bool) -> dict[str, Any]:
    return switches.measure(folder, QUICK_SWITCHES if quick else SWITCHES, _say)


def _eta(folder: Path, *, quick: bool) -> dict[str, Any]:
    if quick:
        return foretelling.measure(folder, QUICK_BYTES, 1, 1, _say)
    return foretelling.measure(folder, LARGE_BYTES, RUNS, foretelling.LEARNED_FROM, _say)


def _status(folder: Path, *, quick: bool) -> dict[str, Any]:
    if quick:
        return status.measure(folder, many_rows.QUICK_ROWS, status.QUICK_SECONDS, _say)
    return status.measure(folder, many_rows.ROWS, status.SECONDS, _say)


def _fanout(folder: Path, *, quick: bool) -> dict[str, Any]:
    return fanout.measure(folder, fanout.QUICK_CLIENTS if quick else fanout.CLIENTS, _say)


def _audit(folder: Path, *, quick: bool) -> dict[str, Any]:
    if quick:
        return audit_pages.measure(folder, many_rows.QUICK_ROWS, audit_pages.QUICK_TIMES, _say)
    return audit_pages.measure(folder, many_rows.ROWS, audit_pages.TIMES, _say)


_PARTS = {"switches": _switches, "eta": _eta, "status": _status, "fanout": _fanout, "audit": _audit}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures Gantry beside what it runs.")
    parser.add_argument("--quick", action="store_true", help="few and small runs: shows that it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS), help="these parts instead of all")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
