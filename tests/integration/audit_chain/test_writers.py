"""Threads and processes that write at the same time never fork the chain."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection, transaction

from models_admin import audit, audit_chain
from models_admin.actor import SYSTEM
from models_admin.audit import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[3]


def _write_some(label: str, count: int) -> None:
    for number in range(count):
        with transaction.atomic():
            audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text=f"{label}-{number}")
    connection.close()


PROCESS = """
import sys, django
django.setup()
from django.db import connection, transaction
from django.conf import settings
connection.settings_dict["NAME"], settings.SECRET_KEY = sys.argv[1], sys.argv[3]
from models_admin import audit
from models_admin.actor import SYSTEM
for number in range(25):
    with transaction.atomic():
        audit.write(audit.AuditEvent.RECOVERY, actor=SYSTEM, object_text=f"{sys.argv[2]}-{number}")
"""


def test_threads_keep_one_chain() -> None:
    threads = [threading.Thread(target=_write_some, args=(f"thread {n}", 25)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    report = audit_chain.verify()
    assert (report.is_whole, report.count, report.last_id) == (True, 100, 100)


def test_processes_keep_one_chain() -> None:
    command = [sys.executable, "-c", PROCESS, str(connection.settings_dict["NAME"])]
    processes = [
        subprocess.Popen([*command, f"process {number}", settings.SECRET_KEY], cwd=ROOT) for number in range(3)
    ]

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    report = audit_chain.verify()
    assert (report.is_whole, report.count, report.last_id) == (True, 75, 75)
