"""`manage.py create_api_key USER --name NAME --scope SCOPE … [--expires 90d] [--model ID …]`."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.utils import timezone
from typing_extensions import override

from models_admin import keys
from models_admin.actor import COMMAND
from models_admin.management.following import BAD_USAGE, WordyCommand
from models_admin.models.api_key import Scope

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_MOST_DAYS = 36_500


class Command(WordyCommand):
    """Prints the key alone on stdout, so that it can be taken over by a script; what it is goes to stderr."""

    help = "Make an API key for a user; it is shown once. Scopes: " + "; ".join(f"{s.value}: {s.label}" for s in Scope)

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="whose rights it has")
        parser.add_argument("--name", required=True, help="what it is for")
        parser.add_argument(
            "--scope", action="append", required=True, choices=Scope.values, help="how far it reaches; may be repeated"
        )
        parser.add_argument("--expires", type=_moment, help="such as 12h, 90d or 4w; never when left out")
        parser.add_argument(
            "--model",
            action="append",
            default=[],
            help="id of a model it may be used for; may be repeated; all if left out",
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user “{options['user']}”.", returncode=BAD_USAGE)
        key, token = keys.create_key(
            user,
            actor=COMMAND,
            name=options["name"],
            scopes=options["scope"],
            model_ids=options["model"],
            expires_at=options["expires"],
        )
        until = (
            f"until {timezone.localtime(key.expires_at):%Y-%m-%d %H:%M}" if key.expires_at else "until it is revoked"
        )
        self.stderr.write(
            f"The key of {user.get_username()} for {', '.join(key.scopes)}, good {until}. It is shown only now: keep it safe."
        )
        self.stdout.write(token)
        self.stderr.write(f"Send it as “Authorization: Bearer …”. `manage.py api_keys revoke {key.prefix}` ends it.")


def _moment(text: str) -> datetime:
    """The end of a span of time that begins now."""
    found = re.fullmatch(r"(\d{1,6})([hdw])", text, re.ASCII)
    span = int(found[1]) * _UNITS[found[2]] if found else timedelta(0)
    if not timedelta(0) < span <= timedelta(days=_MOST_DAYS):
        raise ArgumentTypeError(f"{text} is no time from now; write it like 12h, 90d or 4w")
    return timezone.now() + span
