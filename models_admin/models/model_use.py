"""Who uses which model."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from typing_extensions import override


class ModelUse(models.Model):
    """When somebody last got an answer from a model, to a minute. One row for each pair; it says nothing of what was asked."""

    model = models.ForeignKey("models_admin.ModelDefinition", on_delete=models.CASCADE, related_name="uses")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model", "user"], name="one_use_per_person")]

    @override
    def __str__(self) -> str:
        """Who and what."""
        return f"{self.user} {self.model}"
