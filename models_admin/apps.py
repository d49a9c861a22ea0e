"""The app an administrator works in."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate, post_save
from typing_extensions import override


class ModelsAdminConfig(AppConfig):
    """Models, runtimes, switches and the audit."""

    name = "models_admin"
    verbose_name = "Models"

    @override
    def ready(self) -> None:
        """Have sign-ins written down, audit entries kept by the database, and roles there."""
        from models_admin import audit_lockouts, audit_signals, audit_triggers, roles

        audit_signals.connect()
        audit_lockouts.connect()
        post_migrate.connect(audit_triggers.after_migrate, sender=self, dispatch_uid="models_admin.audit_triggers")
        post_migrate.connect(roles.after_migrate, dispatch_uid="models_admin.roles")
        post_save.connect(roles.note_new_user, sender="auth.User", dispatch_uid="models_admin.roles.member")
