"""Somebody who may not switch asks for a model."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self

from django.conf import settings
from django.db import models
from django.utils import timezone
from typing_extensions import override

LIFETIME = timedelta(days=1)


class SwitchRequestQuerySet(models.QuerySet["SwitchRequest"]):
    """Requests."""

    def open(self) -> Self:
        """Not answered, not withdrawn and not older than a day; with person and model."""
        recent = self.filter(state=SwitchRequest.State.OPEN, created_at__gt=timezone.now() - LIFETIME)
        return recent.select_related("user", "model")

    def outdated(self) -> Self:
        """Nobody has answered them for a day."""
        return self.filter(state=SwitchRequest.State.OPEN, created_at__lte=timezone.now() - LIFETIME)


class SwitchRequest(models.Model):
    """Asks those who may switch for a model. `models_admin.switch_requests` is the only code that moves it.

    open -> approved | declined | withdrawn | expired
    """

    class State(models.TextChoices):
        OPEN = "open", "Open"
        APPROVED = "approved", "Approved"
        DECLINED = "declined", "Declined"
        WITHDRAWN = "withdrawn", "Withdrawn"
        EXPIRED = "expired", "Not answered"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="switch_requests")
    model = models.ForeignKey("models_admin.ModelDefinition", on_delete=models.CASCADE, related_name="switch_requests")
    reason = models.CharField(max_length=300, blank=True)
    state = models.CharField(max_length=20, choices=State, default=State.OPEN)
    created_at = models.DateTimeField(auto_now_add=True)
    answered_at = models.DateTimeField(null=True)
    answered_by_name = models.CharField(max_length=150, blank=True)
    answer = models.CharField(max_length=300, blank=True, help_text="A word to the one who asked.")
    job = models.ForeignKey("models_admin.SwitchJob", null=True, on_delete=models.SET_NULL, related_name="+")

    objects = SwitchRequestQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            # Two clicks at once ask once: by the database, not by care.
            models.UniqueConstraint(
                fields=["user", "model"], condition=models.Q(state="open"), name="one_open_request_per_person_and_model"
            )
        ]
        indexes = [
            # The list on the Models tab, asked with every page and every change of a model.
            models.Index(fields=["-id"], condition=models.Q(state="open"), name="open_switch_requests")
        ]

    @override
    def __str__(self) -> str:
        """Who asks for what."""
        return f"{self.user} asks for {self.model}"

    @property
    def is_outdated(self) -> bool:
        """Nobody has answered it for a day; the state says so a moment later."""
        return self.state == self.State.OPEN and self.created_at <= timezone.now() - LIFETIME

    @property
    def is_open(self) -> bool:
        """It waits for an answer."""
        return self.state == self.State.OPEN and not self.is_outdated

    @property
    def changed_at(self) -> datetime:
        """Since when it stands as `words` says."""
        return self.answered_at or self.created_at

    @property
    def words(self) -> str:
        """How it stands, for the one who asked."""
        if self.state == self.State.DECLINED:
            return f"declined by {self.answered_by_name}" + (f": {self.answer}" if self.answer else "")
        if self.state == self.State.APPROVED:
            return f"approved by {self.answered_by_name}"
        if self.state == self.State.WITHDRAWN:
            return "withdrawn"
        return "asked; waiting for an operator" if self.is_open else "nobody answered for a day"
