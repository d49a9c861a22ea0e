"""`manage.py recover [--host NAME] [--wait]`: compare records with reality now."""

from __future__ import annotations

import time
import uuid
from argparse import ArgumentParser
from collections.abc import Collection, Sequence
from typing import Any

import redis
from django.conf import settings
from django.core.cache import cache
from django.core.management.base import BaseCommand, CommandError
from django.db.utils import DatabaseError
from typing_extensions import override

from models_admin import audit, recovery, worker_signs
from models_admin.actor import COMMAND
from models_admin.exceptions import ActionRefused
from models_admin.recovery_report import RecoveryReport

WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.2


class Command(BaseCommand):
    """Has the workers look, or looks itself on a host that is its own and has no worker."""

    help = "End jobs whose worker is gone, adopt running models, drop dead records; says what was found."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", help="only this one; all hosts when left out")
        parser.add_argument(
            "--wait", action="store_true", help="until the workers have looked, and print what they found"
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        token = uuid.uuid4().hex if options["wait"] else ""
        try:
            hosts = recovery.hosts_named([options["host"]] if options["host"] else [])
            living = _living()
            asked = [host for host in hosts if host in living]
            if asked:
                recovery.request_recovery(asked, actor=COMMAND, token=token)
        except ActionRefused as exc:
            raise CommandError(f"{exc} {exc.hint}".strip()) from exc
        except DatabaseError as exc:
            raise CommandError(f"The database cannot be read ({exc}): start Gantry once with `manage.py up`.") from exc
        alone = [host for host in hosts if host not in living]
        self._tell_asked(asked, token)
        for host in alone:
            self._look_itself(host)
        if not hosts:
            self.stdout.write("There is no host yet: start Gantry once with `manage.py up`.")
        if absent := [host for host in alone if host != settings.HOST_NAME]:
            raise CommandError(f"No worker is heard of on {', '.join(absent)}: start one there, it puts things right.")

    def _tell_asked(self, hosts: Sequence[str], token: str) -> None:
        if not token:
            for host in hosts:
                self.stdout.write(f"{host}: its worker was asked; --wait shows what it finds.")
            return
        for report in _reports(hosts, token):
            self.stdout.write(str(report))

    def _look_itself(self, host: str) -> None:
        if host != settings.HOST_NAME:
            return
        audit.write(audit.AuditEvent.RECOVERY, actor=COMMAND, object_text=host)
        report = recovery.reconcile_host(host, waits=True)
        self.stdout.write(str(report))


def _living() -> Collection[str]:
    """Hosts with a worker. Without a broker nobody can be asked, so there are none."""
    try:
        return worker_signs.living_hosts()
    except redis.RedisError:
        return ()


def _reports(hosts: Sequence[str], token: str) -> list[RecoveryReport]:
    """What the workers found.

    Raises:
        CommandError: one did not answer in time.
    """
    keys = {recovery.report_key(token, host): host for host in hosts}
    deadline = time.monotonic() + WAIT_SECONDS
    while len(found := cache.get_many(keys)) < len(keys):
        if time.monotonic() > deadline:
            silent = ", ".join(host for key, host in keys.items() if key not in found)
            raise CommandError(f"The worker of {silent} did not answer within {WAIT_SECONDS:.0f} s.")
        time.sleep(LOOK_SECONDS)
    return [RecoveryReport.from_dict(found[key]) for key in keys]
