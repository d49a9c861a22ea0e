"""What happened in a job, one row for each thing."""

from __future__ import annotations

from django.db import models
from typing_extensions import override


class SwitchEvent(models.Model):
    """One thing that happened; every view of a job is made from this stream."""

    job = models.ForeignKey("models_admin.SwitchJob", on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveIntegerField(help_text="1, 2, 3 … within the job.")
    state = models.CharField(max_length=20)
    step_kind = models.CharField(max_length=20, blank=True)
    percent = models.FloatField()
    bytes_done = models.BigIntegerField(null=True)
    bytes_total = models.BigIntegerField(null=True)
    eta_seconds = models.FloatField(null=True)
    text = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["job_id", "seq"]
        constraints = [models.UniqueConstraint(fields=["job", "seq"], name="one_event_per_seq")]

    @override
    def __str__(self) -> str:
        """Number and text."""
        return f"{self.seq}: {self.text}"
