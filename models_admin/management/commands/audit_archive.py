"""`manage.py audit_archive --before DATE --to FILE`: move old audit entries to a file."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from typing_extensions import override

from models_admin import audit_archive
from models_admin.actor import COMMAND


class Command(BaseCommand):
    """Leaves a signed anchor, behind which the rest still verifies."""

    help = "Move audit entries from before a day to a new JSON Lines file; `audit_verify --file` checks it."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--before", type=_day, required=True, help="the first day to keep, such as 2026-01-31")
        parser.add_argument("--to", type=Path, required=True, help="the file; it must not be there yet")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["to"]
        start = timezone.make_aware(datetime.combine(options["before"], time.min))
        try:
            anchor = audit_archive.archive(start, path, actor=COMMAND)
        except audit_archive.ChainBroken as exc:
            raise CommandError(f"The chain is broken: {exc}. Nothing was archived.") from exc
        except OSError as exc:
            raise CommandError(f"{path} cannot be written: {exc.strerror}. Nothing was archived.") from exc
        if anchor is None:
            self.stdout.write(f"No entry is older than {options['before']}.")
        else:
            self.stdout.write(f"{anchor.count:,} entries up to {anchor.entry_id} are in {path}.")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text} is no day; write it like 2026-01-31") from None
