"""Ending this web server process so that whatever runs it starts it again."""

from __future__ import annotations

import os
import signal
import threading

from django.db import transaction

from gantry.env import is_supervised
from models_admin import audit
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused
from models_admin.job_requests import need_permission

DELAY_SECONDS = 2.0  # so that the answer is out


class NotSupervised(ActionRefused):
    """Nobody would start the web server again."""

    code = "not_supervised"


def request_restart(*, actor: Actor) -> float:
    """End this process soon, in the way in which `up` ends it. Models and switches belong to the workers and go on.

    Returns:
        Seconds until then.

    Raises:
        NotAllowed: the actor may not change runtimes, which administrators may.
        NotSupervised: nobody would start it again.
    """
    need_permission(actor, "change_runtime", "restart the web server")
    if not is_supervised():
        raise NotSupervised(
            "Nobody would start the web server again.", "Run it by `manage.py up`, or restart it by hand."
        )
    with transaction.atomic():
        audit.write(audit.AuditEvent.WEB_RESTART, actor=actor, object_text="Web server")
        transaction.on_commit(_end_soon)
    return DELAY_SECONDS


def _end_soon() -> None:
    timer = threading.Timer(DELAY_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
