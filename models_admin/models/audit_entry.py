"""Who did what."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from typing_extensions import override


class AuditEntry(models.Model):
    """One thing that somebody did or that happened by itself. Rows are only ever added (I5)."""

    at = models.DateTimeField(auto_now_add=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(max_length=150, help_text='"system" when nobody asked.')
    via = models.CharField(max_length=20)
    address = models.CharField(max_length=45, blank=True)
    event = models.CharField(max_length=60, help_text="source:subject:action, see models_admin.audit.AuditEvent.")
    object_text = models.CharField(max_length=200)
    job = models.ForeignKey(
        "models_admin.SwitchJob", null=True, on_delete=models.SET_NULL, related_name="audit_entries"
    )
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    outcome = models.CharField(max_length=40, blank=True)

    class Meta:
        verbose_name_plural = "audit entries"
        ordering = ["-id"]

    @override
    def __str__(self) -> str:
        """Who and what."""
        return f"{self.actor_name} {self.event} {self.object_text}"

    @override
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Add the row; an existing row is never changed."""
        if not self._state.adding:
            raise TypeError("audit entries are never changed")
        super().save(*args, **kwargs)

    @override
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Refused: audit entries are never deleted."""
        raise TypeError("audit entries are never deleted")
