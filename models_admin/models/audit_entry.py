"""Who did what."""

from __future__ import annotations

from typing import Any, NoReturn

from django.conf import settings
from django.db import models, transaction
from django.utils import timezone
from typing_extensions import override

from models_admin.audit_hash import moment_text, plain, seal
from models_admin.models.audit_head import AuditHead


class AuditEntryQuerySet(models.QuerySet["AuditEntry"]):
    """Entries join the chain one by one, so none comes in past `save`."""

    @override
    def bulk_create(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: each entry is sealed as it is saved."""
        raise TypeError("audit entries are added one by one")


class AuditEntry(models.Model):
    """One thing that somebody did or that happened by itself. Rows are only ever added (I5).

    Each carries the hash of the one before and its own (`models_admin.audit_hash`); numbers run without a gap, since the head of the
    chain gives them. Person and job are kept as bare numbers beside their names: deleting either leaves the entry as it was.
    """

    at = models.DateTimeField(default=timezone.now, editable=False)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    actor_name = models.CharField(max_length=150, help_text='"system" when nobody asked.')
    via = models.CharField(max_length=20)
    address = models.CharField(max_length=45, blank=True)
    event = models.CharField(max_length=60, help_text="source:subject:action, see models_admin.audit.AuditEvent.")
    object_text = models.CharField(max_length=200)
    job = models.ForeignKey(
        "models_admin.SwitchJob",
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="audit_entries",
    )
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    outcome = models.CharField(max_length=40, blank=True)
    previous_hash = models.CharField(max_length=64, editable=False)
    hash = models.CharField(max_length=64, editable=False)

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "audit entries"
        ordering = ["-id"]
        indexes = [
            # One for each filter of the review page, which shows the newest first: read backwards from the wanted place.
            models.Index(fields=["actor_name", "id"], name="audit_by_actor"),
            models.Index(fields=["event", "id"], name="audit_by_event"),
            models.Index(fields=["object_text", "id"], name="audit_by_object"),
            models.Index(fields=["outcome", "id"], name="audit_by_outcome"),
            models.Index(fields=["address", "id"], name="audit_by_address"),
            models.Index(fields=["at", "id"], name="audit_by_moment"),
        ]

    @override
    def __str__(self) -> str:
        """Who and what."""
        return f"{self.actor_name} {self.event} {self.object_text}"

    @override
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Add the row at the end of the chain; an existing row is never changed."""
        if not self._state.adding:
            raise TypeError("audit entries are never changed")
        self._make_storable()
        with transaction.atomic():
            head = AuditHead.locked()
            self.pk, self.at, self.previous_hash = head.entry_id + 1, timezone.now(), head.hash
            self.hash = seal(self.sealed_values())
            super().save(force_insert=True)
            head.move_to(self.pk, self.hash)

    @override
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Refused: audit entries are never deleted."""
        raise TypeError("audit entries are never deleted")

    def sealed_values(self) -> dict[str, Any]:
        """Everything that its hash covers; also what exports and archives hold of it."""
        return {
            "id": self.pk,
            "at": moment_text(self.at),
            "actor_id": self.actor_id,
            "actor_name": self.actor_name,
            "via": self.via,
            "address": self.address,
            "event": self.event,
            "object_text": self.object_text,
            "job_id": self.job_id,
            "before": self.before,
            "after": self.after,
            "outcome": self.outcome,
            "previous_hash": self.previous_hash,
        }

    def _make_storable(self) -> None:
        """Text as every database takes it: whoever is refused by one for a NUL would go unrecorded."""
        for field in self._meta.concrete_fields:
            if isinstance(field, models.CharField):
                setattr(self, field.attname, plain(str(getattr(self, field.attname)))[: field.max_length])
        self.before, self.after = plain(self.before), plain(self.after)
