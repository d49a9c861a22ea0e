"""A Gantry whose audit log is long, for measurements of what must not get slower with it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.functional.stack import ADMIN_NAME, ADMIN_PASSWORD, ROOT, Stack, environment_for, start_stack

ROWS, QUICK_ROWS = 1_000_000, 2_000
MODELS = 12  # in the list; none of them is loaded
_FILL_SECONDS = 1200.0
_FILL = "from tests.audit_rows import fill_audit; fill_audit({count})"
_PREPARE = """
import json
from django.contrib.auth.models import User
from models_admin import keys
from models_admin.actor import Actor
from models_admin.models import AuditEntry, ModelDefinition, Runtime
runtime = Runtime.objects.get(kind="llama_server")
if not ModelDefinition.objects.exists():
    ModelDefinition.objects.bulk_create(
        ModelDefinition(model_id=f"model-{{n}}", name=f"Model {{n}}", path=f"{{n}}.gguf", size_bytes=n * 10**9, runtime=runtime)
        for n in range({models})
    )
user = User.objects.get(username={name!r})
token = keys.create_key(user, actor=Actor(user, "command"), name="bench", scopes=["admin"])[1]
print(json.dumps({{"token": token, "rows": AuditEntry.objects.count()}}))
"""


@contextmanager
def long_log(folder: Path, count: int, say: Callable[[str], None]) -> Iterator[tuple[Stack, str, int]]:
    """The running Gantry, a key for everything, and how many entries its log has. Filled once for all measurements in a folder."""
    data_dir = folder / f"log-{count}"
    if not data_dir.exists():
        say(f"Writing {count:,} audit entries …")
        began = time.monotonic()
        _manage(data_dir, "migrate", "--verbosity", "0")
        _manage(data_dir, "shell", "-v", "0", "-c", _FILL.format(count=count))
        say(f"… in {time.monotonic() - began:.0f} s")
    stack = start_stack(data_dir)
    try:
        found = ask(stack, _PREPARE.format(models=MODELS, name=ADMIN_NAME))
        yield stack, found["token"], found["rows"]
    finally:
        stack.stop()


def ask(stack: Stack, script: str) -> Any:
    """What a script says in JSON that runs beside the stack."""
    done = stack.manage("shell", "-v", "0", "-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def session_cookie(stack: Stack) -> str:
    """Of the administrator, signed in."""
    with httpx.Client(base_url=stack.url, trust_env=False, timeout=30) as client:
        client.get("sign-in/")
        form = {"username": ADMIN_NAME, "password": ADMIN_PASSWORD, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        assert client.post("sign-in/", data=form).status_code == 302, "the administrator cannot sign in"
        return f"sessionid={client.cookies['sessionid']}"


def _manage(data_dir: Path, *arguments: str) -> None:
    environment = environment_for(data_dir)
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=_FILL_SECONDS)
