"""`manage.py createsuperuser`: Django's command to add a superuser, written down in the audit log."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.management.commands import createsuperuser
from typing_extensions import override

from models_admin.actor import COMMAND
from models_admin.audit_signals import accounts_noted


class Command(createsuperuser.Command):
    """The same, audited."""

    @override
    def handle(self, *args: Any, **options: Any) -> str | None:
        """Do it, and write down who was changed."""
        with accounts_noted(COMMAND):
            return super().handle(*args, **options)
