"""The benchmark runs through and tells what it promises. How fast anything is, is not asked here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import foretelling
from tests.bench.rows import Event, Job


@pytest.mark.real_models
@pytest.mark.llama
def test_quick_run_measures_switches_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"

    bench.main(["--quick", "--only", "switches", "--json", str(file)])

    results = json.loads(file.read_text())
    switches, table = results["switches"], capsys.readouterr().out
    assert results["machine"]["cores"] >= 1
    assert "llama-server" in switches["llama_server"]
    assert switches["ratio"] > 0
    assert [pair["to"] for pair in switches["pairs"]] == [
        "smollm2-135m-instruct",
        "gemma-3-270m",
        "smollm2-135m-instruct",
    ]
    for target, figures in switches["directions"].items():
        assert f"to {target}" in table
        # A cold switch: one model made way for the other.
        assert {"request", "waiting", "planning", "unload", "load", "verify", "rest", "shown"} <= set(figures["stages"])
        assert all(stage["gantry_seconds"] >= 0 for stage in figures["stages"].values())
        for same in ("unload", "load", "verify"):
            assert figures["stages"][same]["bare_seconds"] > 0
    assert "aim: 1.02 or less" in table


def test_foretold_length_is_taken_where_a_quarter_of_the_load_is_done() -> None:
    # The job: 1 s of unloading, 8 s of loading, 1 s of verifying.
    events = [
        Event("unload", "unloading", 0.0, 10.0, 100.0),
        Event("load", "loading", 10.0, 9.0, 101.0),
        Event("load", "loading", 28.0, 8.0, 103.0),  # not yet a quarter: that is at 10 + 80 / 4
        Event("load", "loading", 31.0, 7.0, 104.0),
        Event("load", "loading", 90.0, 1.0, 111.0),
        Event("verify", "warming", 90.0, 1.0, 111.0),
    ]
    job = Job(1, 100.0, 100.0, 112.0, {"unload": 1.0, "load": 8.0, "verify": 1.0}, tuple(events))

    load = foretelling.load_of(job, is_cold=True)

    assert load.took == 10.0
    assert load.at_quarter == 9.0  # 3 s gone by, 7 s left, 1 s of them for verifying
    assert load.error_percent == 10.0
    assert load.quarter_at == 3.0


def test_no_word_counts_as_wholly_wrong() -> None:
    load = foretelling.Load(is_cold=False, took=10.0, at_quarter=None, quarter_at=3.0)

    assert load.error_percent == 100.0
