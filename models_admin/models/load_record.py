"""The ledger of loads."""

from __future__ import annotations

from django.db import models
from typing_extensions import override


class LoadRecord(models.Model):
    """One load that ended well: what it took. Expected times and needs are learned from these."""

    model = models.ForeignKey("models_admin.ModelDefinition", on_delete=models.CASCADE, related_name="load_records")
    parameters_hash = models.CharField(max_length=64, help_text="SHA-256 over the parameters it was loaded with.")
    host = models.CharField(max_length=100)
    held_bytes = models.BigIntegerField(help_text="Measured once it was ready.")
    file_bytes = models.BigIntegerField()
    load_seconds = models.FloatField()
    reading_seconds = models.FloatField(
        null=True, help_text="Of the load, until all was read; empty where the runtime tells no bytes."
    )
    expected_seconds = models.FloatField(help_text="What was foretold for the load.")
    verify_seconds = models.FloatField(null=True, help_text="Until its first token, once it was loaded.")
    at_quarter_seconds = models.FloatField(
        null=True, help_text="What the load was foretold to take when a quarter of it was done."
    )
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            # The last loads of a model with these parameters: asked by every plan.
            models.Index(fields=["model", "parameters_hash", "-id"], name="last_loads")
        ]

    @override
    def __str__(self) -> str:
        """Seconds and bytes."""
        return f"{self.load_seconds:.1f} s, {self.held_bytes} bytes"
