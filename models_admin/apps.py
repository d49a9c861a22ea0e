"""The app an administrator works in."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from typing_extensions import override


class ModelsAdminConfig(AppConfig):
    """Models, runtimes, switches and the audit."""

    name = "models_admin"
    verbose_name = "Models"

    @override
    def ready(self) -> None:
        """Have sign-ins written down, and audit entries kept by the database."""
        from models_admin import audit_signals, audit_triggers

        audit_signals.connect()
        post_migrate.connect(audit_triggers.after_migrate, sender=self, dispatch_uid="models_admin.audit_triggers")
