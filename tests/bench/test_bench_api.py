"""The measurements of the API run through and tell what they promise. How fast anything is, is not asked here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.audit_pages import TIMES
from tests.bench.callers import spread
from tests.bench.fanout import QUICK_CLIENTS
from tests.bench.status import PER_SECOND, QUICK_SECONDS


@pytest.mark.llama
def test_quick_run_measures_status_and_audit_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"

    bench.main(["--quick", "--only", "status", "audit", "--json", str(file)])

    results, table = json.loads(file.read_text()), capsys.readouterr().out
    assert [(case["path"], case["with"]) for case in results["status"]["cases"]] == [
        ("/healthz", "nobody"),
        ("/v1/models/status", "key"),
        ("/v1/models/status", "session"),
        ("/api/llm-status", "key"),
        ("/api/llm-status", "session"),
    ]
    for case in results["status"]["cases"]:
        assert case["seconds"]["count"] == round(PER_SECOND * QUICK_SECONDS)
        assert case["most_per_second"] > 0
    assert 2000 <= results["status"]["rows"] <= results["audit"]["rows"]  # each start adds some
    names = [page["name"] for page in results["audit"]["pages"]]
    assert {"list", "one person", "words that are rare", "one story"} <= set(names)
    assert all(page["seconds"]["count"] < TIMES for page in results["audit"]["pages"])
    assert "aim: p99 under 20 ms" in table
    assert all(name in table for name in names)


@pytest.mark.llama
def test_quick_run_measures_fan_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"

    bench.main(["--quick", "--only", "fanout", "--json", str(file)])

    figures, table = json.loads(file.read_text())["fanout"], capsys.readouterr().out
    assert figures["clients"] == QUICK_CLIENTS
    for case in figures["cases"]:
        assert case["name"] in table
        assert case["seconds"]["count"] >= 1
        assert case["seconds"]["median"] > 0


def test_spread_tells_the_percentile() -> None:
    assert spread([0.5]) == {"count": 1, "median": 0.5, "p99": 0.5, "most": 0.5}
    assert spread([number / 100 for number in range(101)])["p99"] == 0.99
