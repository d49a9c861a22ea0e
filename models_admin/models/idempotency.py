"""The first answers to requests that may come twice."""

from __future__ import annotations

from django.db import models
from typing_extensions import override

from models_admin.fields import EncryptedTextField


class IdempotentAnswer(models.Model):
    """What a request with an `Idempotency-Key` was answered. `models_admin.idempotency` is the only code that writes here.

    in progress (no status) -> answered -> (row deleted after a day)
    """

    actor = models.CharField(max_length=40, help_text='Who asked: "user-3" or "key-4".')
    path = models.CharField(max_length=500)
    key = models.CharField(max_length=200, help_text="As the program sent it.")
    body_hash = models.CharField(max_length=64, help_text="SHA-256 of the body, in hex.")
    status = models.PositiveSmallIntegerField(null=True, help_text="Of the answer; empty while there is none.")
    # An answer may hold a new API key, which is stored readable nowhere.
    body = EncryptedTextField(blank=True)
    location = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        default_permissions = ()  # nobody looks at these
        constraints = [
            models.UniqueConstraint(fields=["actor", "path", "key"], name="one_answer_per_idempotency_key"),
        ]
        indexes = [
            # What is older than a day: asked before each new one.
            models.Index(fields=["created_at"], name="idempotent_answers_by_age"),
        ]

    @override
    def __str__(self) -> str:
        """Who and where."""
        return f"{self.actor} {self.path}"
