"""A program's key."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.core.validators import MaxValueValidator
from django.db import models
from typing_extensions import override


class Scope(models.TextChoices):
    """How far a key reaches, within what its user may do."""

    STATUS = "status", "See models, switches and memory"
    CHAT = "chat", "Chat"
    SWITCH = "switch", "Switch, unload and restart models; cancel switches of its own user"
    ADMIN = "admin", "Everything that its user may do"


_SEEING = frozenset({"see_status"}) | {
    f"view_{name}" for name in ("modeldefinition", "modelinstance", "runtime", "memorypool", "switchjob", "switchevent")
}
# Permissions of this app that each scope leaves to the user; the scope ADMIN leaves all.
PERMISSIONS: dict[str, frozenset[str]] = {
    Scope.STATUS: _SEEING,
    Scope.CHAT: frozenset({"chat"}),
    Scope.SWITCH: _SEEING | {"switch_model"},
}


class ApiKey(models.Model):
    """Lets a program act for a user. Only a hash of the secret is kept: who has lost a key makes another one.

    valid -> revoked | expired; neither comes back.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100, help_text="What it is for.")
    prefix = models.CharField(max_length=20, unique=True, editable=False, help_text="Its readable beginning.")
    secret_hash = models.CharField(max_length=64, editable=False, help_text="SHA-256 of the secret, in hex.")
    scopes = models.JSONField(default=list, help_text="Values of Scope.")
    model_ids = models.JSONField(
        "models", default=list, blank=True, help_text="Ids of the models it may be used for. Empty: all."
    )
    switches_per_minute = models.PositiveSmallIntegerField(
        "switches a minute",
        null=True,
        blank=True,
        validators=[MaxValueValidator(1000)],
        help_text="Instead of the limit for its user. Empty: they share that one. 0: no limit.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: never.")
    last_used_at = models.DateTimeField(null=True, editable=False, help_text="Exact to a minute.")
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "API key"
        ordering = ["-id"]

    @override
    def __str__(self) -> str:
        """Its readable beginning and what it is for."""
        return f"{self.prefix} ({self.name})"

    def has_scope(self, scope: str) -> bool:
        """Whether it reaches so far. `admin` holds all others, `switch` holds `status`."""
        held = set(self.scopes)
        return scope in held or Scope.ADMIN in held or (scope == Scope.STATUS and Scope.SWITCH in held)

    def allows(self, permission: str) -> bool:
        """Whether its scopes leave this permission of the app to its user."""
        return Scope.ADMIN in self.scopes or any(permission in PERMISSIONS.get(scope, ()) for scope in self.scopes)

    def is_valid(self, now: datetime) -> bool:
        """It can be used at that moment."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)
