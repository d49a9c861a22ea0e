"""`manage.py audit_verify [--json] [--file FILE] [--sign]`: prove that the audit log is as it was written."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from typing_extensions import override

from models_admin import audit, audit_archive, audit_chain
from models_admin.actor import COMMAND
from models_admin.audit_chain import ChainReport


class Command(BaseCommand):
    """Exits with 1 when something is broken."""

    help = (
        "Look through the audit log, or an archive file of it, and name the first entry that is not as it was written."
    )

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print what was found for a program")
        parser.add_argument("--file", type=Path, help="an archive file instead of the database")
        parser.add_argument(
            "--sign",
            action="store_true",
            help="afterwards sign the end of the chain anew: SECRET_KEY was changed, or a break was looked into",
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        if options["sign"] and options["file"]:
            raise CommandError("--sign is for the database: leave --file out.")
        report = _look(options["file"])
        if options["sign"]:
            self._sign(report)
            report = audit_chain.verify_and_note()
        self.stdout.write(json.dumps(report.as_dict(), indent=2) if options["json"] else _words(report))
        if not report.is_whole:
            sys.exit(1)

    def _sign(self, report: ChainReport) -> None:
        found = report.broken.text if report.broken else ""
        with transaction.atomic():
            audit_chain.sign_anew()
            audit.write(audit.AuditEvent.AUDIT_SIGN, actor=COMMAND, object_text="Audit log", before={"broken": found})


def _look(file: Path | None) -> ChainReport:
    if file is None:
        return audit_chain.verify_and_note()
    try:
        return audit_archive.check_file(file)
    except OSError as exc:
        raise CommandError(f"{file} cannot be read: {exc.strerror}.") from exc


def _words(report: ChainReport) -> str:
    lines = [f"Warning: {warning}." for warning in report.warnings]
    if report.broken:
        found = f"The chain is broken: {report.broken.text}."
        right = f" {report.count:,} before it are right." if report.count else ""
        return "\n".join([*lines, found + right])
    if not report.count:
        return "\n".join([*lines, "There is no entry yet."])
    return "\n".join([*lines, f"{report.count:,} entries are right, {report.first_id} to {report.last_id}."])
