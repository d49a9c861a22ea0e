"""How far a load has come."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gantry.runtimes.base import LoadStage
from gantry.runtimes.llama_progress import LoadMeter, position_in_file, resident_of_file, sample_memory, spoken_fraction

MIB = 1024**2


def said(value: float, current: str = "text_model", stages: tuple[str, ...] = ("text_model",)) -> dict[str, Any]:
    return {"state": "loading", "payload": {"stages": list(stages), "current": current, "value": value}}


@pytest.mark.parametrize(
    ("states", "fraction"),
    [
        ([], 0.0),
        ([said(0.25)], 0.25),
        ([said(0.5), said(0.0)], 0.5),  # told anew by a second pass over the file: it never falls
        ([said(0.5, "mmproj_model", ("text_model", "mmproj_model"))], 0.75),
        ([said(7.0)], 1.0),
        ([{"state": "loading", "payload": {"stage": "mmproj_model"}}], 0.0),  # as older builds say it
        ([{"state": "loading"}], 0.0),
    ],
)
def test_word_of_the_server(states: list[dict[str, Any]], fraction: float) -> None:
    assert spoken_fraction(states) == fraction


def test_meter_starts_reads_and_never_says_done_before_ready(tmp_path: Path) -> None:
    meter = LoadMeter(tmp_path / "absent.gguf", 1000 * MIB)
    assert meter.read(None, []).stage == LoadStage.STARTING
    reading = meter.read(os.getpid(), [said(0.5)])
    assert (reading.stage, reading.fraction, reading.bytes_done) == (LoadStage.READING, 0.45, 500 * MIB)
    assert meter.read(os.getpid(), [said(0.2)]).fraction == 0.45
    assert meter.read(os.getpid(), [said(0.2)]).read_fraction == 0.5
    last = meter.read(os.getpid(), [said(1.0)])
    assert last.read_fraction == 1
    assert (last.stage, last.fraction) == (LoadStage.INITIALISING, 0.9)
    assert (meter.ready().stage, meter.ready().fraction) == (LoadStage.READY, 1.0)


def test_meter_of_a_process_that_cannot_be_seen_goes_by_what_it_hears(tmp_path: Path) -> None:
    meter = LoadMeter(tmp_path / "absent.gguf", 1000 * MIB)
    assert (meter.hear([]).stage, meter.hear([]).fraction) == (LoadStage.READING, 0.0)
    assert (meter.hear([said(0.5)]).fraction, meter.hear([said(0.5)]).bytes_done) == (0.45, 500 * MIB)
    assert meter.hear([said(0.1)]).fraction == 0.45
    assert (meter.hear([said(1.0)]).stage, meter.hear([said(1.0)]).fraction) == (LoadStage.INITIALISING, 0.9)


def test_mapped_file_counts_as_it_comes_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    meter = LoadMeter(path, 64 * MIB)
    assert (meter.read(os.getpid(), [said(0.0)]).fraction or 0) < 0.1
    with path.open("rb") as weights, mmap.mmap(weights.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for position in range(0, 32 * MIB, mmap.PAGESIZE):
            mapped[position]
        assert 30 * MIB < resident_of_file(os.getpid(), path) < 40 * MIB
        half = meter.read(os.getpid(), [said(0.0)]).fraction
    assert half == pytest.approx(0.45, abs=0.06)


READS = """
import sys
with open(sys.argv[1], "rb", buffering=0) as other, open(sys.argv[2], "rb", buffering=0) as weights:
    for file, parts in ((other, 8), (weights, 32), (weights, 16)):
        for _ in range(parts):
            file.read(2**20)
        if file is weights:
            print(flush=True)
            sys.stdin.readline()
"""


def test_what_was_read_before_the_first_look_counts_and_what_is_not_of_the_model_does_not(tmp_path: Path) -> None:
    other, path = tmp_path / "library", tmp_path / "weights"
    for file in (other, path):
        file.touch()
        os.truncate(file, 64 * MIB)
    meter = LoadMeter(path, 64 * MIB)
    argv = [sys.executable, "-c", READS, str(other), str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        assert meter.unheard(process.pid).bytes_done == 32 * MIB
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert meter.unheard(process.pid).bytes_done == pytest.approx(48 * MIB, rel=0.01)
        process.stdin.close()


def test_process_that_is_gone_holds_nothing() -> None:
    sample = sample_memory(2**22 + 1)
    assert (sample.read, sample.resident) == (0, 0)
    assert position_in_file(2**22 + 1, Path("weights")) == 0
