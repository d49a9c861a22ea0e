"""`manage.py audit export --format csv|jsonl [filters]`: the audit log for other programs."""

from __future__ import annotations

import contextlib
import os
from argparse import ArgumentParser, ArgumentTypeError
from datetime import date
from pathlib import Path
from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from models_admin import audit, audit_export
from models_admin.actor import COMMAND
from models_admin.audit_review import AuditFilter


class Command(BaseCommand):
    """Prints, or writes to a file, with the same filters as the review page."""

    help = "Export audit entries, oldest first. `audit_verify` and `audit_archive` are commands of their own."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        export = verbs.add_parser("export", help="print entries as CSV or JSON Lines")
        export.add_argument("--format", choices=sorted(audit_export.CONTENT_TYPES), default="jsonl")
        export.add_argument("--to", type=Path, help="a new file instead of the terminal")
        export.add_argument("--who", default="", help="name of the one who did it")
        export.add_argument("--what", default="", help="the event, such as model:switch:request")
        export.add_argument("--model", default="", help="name of the model or other object")
        export.add_argument("--outcome", default="", help="such as failed")
        export.add_argument("--since", type=_day, help="first day, such as 2026-01-31")
        export.add_argument("--until", type=_day, help="last day")
        export.add_argument("--search", dest="text", default="", help="part of a name or an address")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        names = ("who", "what", "model", "outcome", "since", "until", "text")
        wanted = AuditFilter(**{name: options[name] for name in names})
        try:
            with self._target(options["to"]) as target:
                for piece in audit_export.export(wanted, options["format"]):
                    target.write(piece)
        except BrokenPipeError:
            # Whoever read it has read enough; nothing is left to say, also not at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        except OSError as exc:
            raise CommandError(f"{options['to']} cannot be written: {exc.strerror}.") from exc
        audit.write(
            audit.AuditEvent.AUDIT_EXPORT,
            actor=COMMAND,
            object_text="Audit log",
            after={"format": options["format"], "filter": wanted.as_query()},
        )

    def _target(self, path: Path | None) -> contextlib.AbstractContextManager[TextIO]:
        if path is not None:
            return path.open("x", encoding="utf-8", newline="")
        # Django's own wrapper of the output would end each piece with a new line.
        return contextlib.nullcontext(cast("TextIO", self.stdout._out))  # noqa: SLF001


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text} is no day; write it like 2026-01-31") from None
