"""Reading within bounds."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from gantry.runtimes import bounded_reading
from gantry.runtimes.bounded_reading import LONGEST_WORDS, UnreadableError, one_line, read_all, read_events, read_json


def test_events_are_found_however_the_bytes_are_cut() -> None:
    stream = (
        b'data: {"a": 1}\r\n\r\n: ping - 2026\r\n\r\ndata: [DONE]\r\n\r\nevent: x\r\ndata:{"b": "\xc3\xa4"}\r\n\r\n'
    )
    for size in range(1, len(stream)):
        chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert list(read_events(chunks)) == [{"a": 1}, {"b": "ä"}]


def test_what_is_no_json_object_is_passed_over() -> None:
    assert list(read_events([b"data: {\ndata: 5\ndata: null\ndata: \xff\xfe\ndata: {}\n"])) == [{}]


def test_a_line_that_does_not_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_reading, "LONGEST_LINE", 1000)

    def forever() -> Iterator[bytes]:
        while True:
            yield b"data: x" * 50

    with pytest.raises(UnreadableError):
        list(read_events(forever()))


def test_a_stream_that_does_not_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_reading, "LARGEST_STREAM", 10_000)

    def forever() -> Iterator[bytes]:
        while True:
            yield b'data: {"x": 1}\n\n'

    with pytest.raises(UnreadableError):
        list(read_events(forever()))


def test_a_body_has_a_largest_size_and_a_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_reading, "LARGEST_ANSWER", 10)
    later = time.monotonic() + 60
    assert read_all([b"12345", b"67890"], later) == b"1234567890"
    with pytest.raises(UnreadableError):
        read_all([b"12345", b"678901"], later)
    with pytest.raises(UnreadableError):
        read_all([b"1"], time.monotonic() - 1)


@pytest.mark.parametrize("data", [b"", b"{", b"<html>", b"[" * 100_000, b"1" * 100_000, b"\xff"])
def test_what_is_not_json_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_json(data)


def test_somebody_elses_text_is_one_line_and_short() -> None:
    assert one_line("a\tb\r\n\x1b[31mc\u2028d") == "a b [31mc d"
    assert len(one_line("x" * 10_000)) == LONGEST_WORDS
    assert one_line(["x"]) == ""
