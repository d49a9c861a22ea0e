"""`manage.py api_keys list | revoke PREFIX`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone
from typing_extensions import override

from models_admin import keys
from models_admin.actor import COMMAND
from models_admin.management.following import BAD_USAGE, WordyCommand
from models_admin.models import ApiKey
from models_admin.templatetags.gantry_format import ago

_HEAD = ["Key", "User", "Name", "Scopes", "Models", "Last used", "State"]


class Command(WordyCommand):
    """What keys there are; nobody sees a secret. `create_api_key` makes one."""

    help = "List API keys, or revoke one."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="list | revoke")
        verbs.add_parser("list", help="every key, newest first")
        revoke = verbs.add_parser("revoke", help="end a key for good")
        revoke.add_argument("prefix", help="its readable beginning, such as gty_ab12cd34")

    @override
    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        if verb == "list":
            self._list()
        else:
            self._revoke(options["prefix"])

    def _list(self) -> None:
        lines = [_cells(key) for key in keys.keys_seen_by(COMMAND)]
        if not lines:
            self.stdout.write("There are no keys yet. `manage.py create_api_key` makes one.")
            return
        for line in _aligned([_HEAD, *lines]):
            self.stdout.write(line)

    def _revoke(self, prefix: str) -> None:
        # Of a key that was pasted whole, only the readable beginning is looked at.
        prefix = "_".join(prefix.split("_")[:2])
        key = ApiKey.objects.select_related("user").filter(prefix=prefix).first()
        if key is None:
            raise CommandError(f"There is no key {prefix}. `manage.py api_keys list` lists them.", returncode=BAD_USAGE)
        if key.revoked_at is not None:
            self.stdout.write(f"{key} was revoked already.")
            return
        keys.revoke_key(key, actor=COMMAND)
        self.stdout.write(f"{key} of {key.user.get_username()} is revoked; it is refused from now on.")


def _cells(key: ApiKey) -> list[str]:
    scopes, models = ", ".join(key.scopes), ", ".join(key.model_ids) or "all"
    return [key.prefix, key.user.get_username(), key.name, scopes, models, ago(key.last_used_at), _state(key)]


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if not key.is_valid(timezone.now()):
        return "expired"
    return f"until {timezone.localtime(key.expires_at):%Y-%m-%d}" if key.expires_at else "no end"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
