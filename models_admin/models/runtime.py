"""A program that holds models."""

from __future__ import annotations

from typing import Any

from django.db import models
from typing_extensions import override

from models_admin.fields import EncryptedTextField


class Runtime(models.Model):
    """One LLM server (or one way to start them) on one host, with its health as last seen."""

    class Kind(models.TextChoices):
        LLAMA_SERVER = "llama_server", "llama-server"
        LLAMA_ROUTER = "llama_router", "llama-server, router mode"
        TABBY = "tabby", "TabbyAPI"
        NULL = "null", "Null (for development)"

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=30, choices=Kind)
    pool = models.ForeignKey("models_admin.MemoryPool", on_delete=models.PROTECT, related_name="runtimes")
    options = models.JSONField(default=dict, blank=True, help_text="Settings of this kind of runtime.")
    url = models.CharField(
        "address", max_length=500, blank=True, help_text="Of a server that runs already, such as http://127.0.0.1:5000."
    )
    api_key = EncryptedTextField("API key", blank=True)
    admin_key = EncryptedTextField(
        "admin key", blank=True, help_text="For loading and unloading, if that takes another."
    )
    is_enabled = models.BooleanField(default=True)
    is_healthy = models.BooleanField(default=False, editable=False)
    health_text = models.CharField(max_length=500, blank=True, editable=False)
    version = models.CharField(max_length=200, blank=True, editable=False)
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    max_models = models.PositiveIntegerField(
        null=True, editable=False, help_text="So many at once at the most, as the server told last. Empty: no limit."
    )

    class Meta:
        ordering = ["name"]

    @override
    def __str__(self) -> str:
        """Its name."""
        return self.name

    def option(self, name: str, default: Any = None) -> Any:
        """One of the runtime's own settings."""
        return self.options.get(name, default)
