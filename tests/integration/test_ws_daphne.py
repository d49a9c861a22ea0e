"""What only the real web server shows: how a connection ends on which more is sent than it reads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.program_socket import CLOSE, PING, TEXT, ProgramSocket

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a Daphne with its own settings, as `up` starts it."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        command = [sys.executable, "-m", "daphne", "--fd", str(number), "tests.integration.echo_server:application"]
        server = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[number])
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.kill()
            server.wait()


@pytest.mark.parametrize("size", [MIB + 1, 2 * MIB, 16 * MIB])
def test_message_that_is_larger_than_the_server_reads_closes_with_1009(url: str, size: int) -> None:
    with ProgramSocket(url, "") as program:
        program.send_frame(TEXT, b"x" * size)
        assert program.next() is None
        assert program.close_code == 1009


def test_largest_message_that_it_reads_leaves_the_connection_open(url: str) -> None:
    with ProgramSocket(url, "") as program:
        for length in (MIB, 1):
            program.send_frame(TEXT, b"x" * length)
            assert program.next() == {"length": length}


def test_what_comes_after_it_is_thrown_away_and_goodbye_ends_the_connection(url: str) -> None:
    with ProgramSocket(url, "") as program:
        program.send_frame(TEXT, b"x" * 2 * MIB)
        program.send_frame(TEXT, b"x")
        assert program.next() is None
        assert program.close_code == 1009
        program.close_code = None
        program.send_frame(CLOSE, (1009).to_bytes(2, "big"))
        assert program.next() is None
        assert program.close_code is None, "the server hung up"


def test_other_violation_of_the_protocol_is_dropped_before_it_fills_the_memory(url: str) -> None:
    with ProgramSocket(url, "") as program:
        program.send_frame(PING, b"x" * 126)
        assert program.next() is None
        assert program.close_code is None


@pytest.mark.parametrize("code", [1000, 1008, 1011, 1013, 4403])
def test_connection_is_closed_with_the_code_that_the_application_gives(url: str, code: int) -> None:
    with ProgramSocket(url, "") as program:
        program.send_frame(TEXT, f"close {code}".encode())
        assert program.next() is None
        assert program.close_code == code
