"""The command lines of the documents work as they are written: a shell and the real curl run them against a running Gantry."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.functional.api_seeds.world import GPT, LLAMA, QWEN, WAIT_SECONDS, World
from tests.functional.stack import ADMIN_NAME, ADMIN_PASSWORD, wait_until

FILE = Path(__file__).with_name("curl_lines.txt")
HOST, KEY, COOKIE = r"http://localhost:\d+", "my-secret-api-key-12345", '-H "Cookie: session_id=abc123"'
# What each line is answered, in the order of the file; an ellipsis stands for any value.
ANSWERS: list[dict[str, Any]] = [
    {"running": True, "current_model": QWEN, "models": ...},
    {"success": True, "message": ..., "model_id": GPT},
    {"success": True, "message": ..., "model_id": GPT},
    {"status": "switching", "message": f"Switching to {QWEN}", "model_id": QWEN, "info": ..., "estimated_time_seconds": ...},
    {"status": ..., "model_loaded": ..., "current_model": ..., "message": ...},
    {"message": f"Model switched to {LLAMA}", "model_id": LLAMA},
    {"models": ...},
    {"message": "Model unloaded successfully"},
]  # fmt: skip


def curl_lines() -> list[str]:
    """Each command of the file, with its continuation lines."""
    text = "\n".join(line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    joined = text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip()]


def test_file_holds_every_line_and_says_what_it_leaves_out() -> None:
    assert len(curl_lines()) == len(ANSWERS)
    assert "port 5000" in FILE.read_text(encoding="utf-8")


@pytest.mark.llama
def test_every_line_works_as_written(gantry: World) -> None:
    gantry.switch(QWEN)
    cookie = session_of(gantry)
    for line, expected in zip(curl_lines(), ANSWERS, strict=True):
        answer = run(with_own_credentials(line, gantry, cookie))
        for name, value in expected.items():
            assert name in answer, (line, answer)
            assert value is ... or answer[name] == value, (line, answer)
        wait_until(lambda: gantry.get("/api/llm-status").json()["job_id"] is None, WAIT_SECONDS)
    assert gantry.get("/api/llm-status").json()["running"] is False


@pytest.mark.llama
def test_line_with_a_session_and_no_token_of_it_is_refused(gantry: World) -> None:
    cookie = session_of(gantry).partition(" -H ")[0]
    refused = run(with_own_credentials(curl_lines()[-1], gantry, cookie))
    assert refused["code"] == "csrf_failed"
    assert "X-CSRFToken" in refused["hint"]


def with_own_credentials(line: str, gantry: World, cookie: str) -> str:
    """The line for this Gantry, with credentials of it."""
    assert re.search(HOST, line), line
    line = re.sub(HOST, gantry.url.rstrip("/"), line)
    if COOKIE in line:
        return line.replace(COOKIE, cookie)
    if KEY in line:
        return line.replace(KEY, gantry.tokens["ole:switch"])
    return f'{line} -H "Authorization: Bearer {gantry.tokens["ole:switch"]}"'


def session_of(gantry: World) -> str:
    """Headers of somebody who has signed in, for curl."""
    with httpx.Client(base_url=gantry.url, follow_redirects=True, trust_env=False, timeout=WAIT_SECONDS) as client:
        client.get("sign-in/")
        form = {"username": ADMIN_NAME, "password": ADMIN_PASSWORD, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        client.post("sign-in/", data=form)
        session, token = client.cookies["sessionid"], client.cookies["csrftoken"]
    return f'-H "Cookie: sessionid={session}; csrftoken={token}" -H "X-CSRFToken: {token}"'


def run(line: str) -> Any:
    """What a shell answers to the line, which is JSON. Where jq is not installed, its input is taken as it is."""
    script = f"command -v jq >/dev/null || jq() {{ cat; }}; curl() {{ command curl -s --noproxy '*' \"$@\"; }}; {line}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=2 * WAIT_SECONDS, check=True)
    return json.loads(done.stdout)
