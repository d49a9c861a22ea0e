"""The ledger of steps."""

from __future__ import annotations

from django.db import models
from typing_extensions import override

from gantry.planning.states import StepKind


class StepRecord(models.Model):
    """How long unloading a model, waiting for its memory, or its first token took. Expected times are learned from these.

    Loads have a ledger of their own (`LoadRecord`), for they depend on more.
    """

    host = models.CharField(max_length=100)
    model = models.ForeignKey(
        "models_admin.ModelDefinition", null=True, on_delete=models.CASCADE, related_name="step_records"
    )
    kind = models.CharField(max_length=20, choices=[(kind.value, kind.value) for kind in StepKind])
    seconds = models.FloatField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            # The last steps of a kind on a host: asked by every plan.
            models.Index(fields=["host", "kind", "-id"], name="last_steps")
        ]

    @override
    def __str__(self) -> str:
        """Kind and seconds."""
        return f"{self.kind}: {self.seconds:.2f} s"
