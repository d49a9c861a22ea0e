"""A model held by a runtime."""

from __future__ import annotations

from django.db import models
from typing_extensions import override

from gantry.planning.states import InstanceState
from models_admin.fields import EncryptedTextField


class ModelInstance(models.Model):
    """One load of one model: the record of what a runtime holds now, kept true by recovery (I3).

    loading -> loaded -> unloading -> (row deleted);  loaded -> crashed -> (row deleted by Restart, Unload or the next switch)
    """

    instance_id = models.UUIDField(unique=True)
    model = models.ForeignKey("models_admin.ModelDefinition", on_delete=models.CASCADE, related_name="instances")
    runtime = models.ForeignKey("models_admin.Runtime", on_delete=models.CASCADE, related_name="instances")
    state = models.CharField(max_length=20, choices=[(s.value, s.value) for s in InstanceState])
    is_active = models.BooleanField(default=False, help_text="The one that chat and requests without a model go to.")
    base_url = models.CharField(max_length=500, blank=True)
    api_key = EncryptedTextField(blank=True)
    pid = models.PositiveIntegerField(null=True)
    process_started_at = models.FloatField(null=True, help_text="Seconds since the epoch; with pid it names a process.")
    held_bytes = models.BigIntegerField(default=0)
    held_on = models.JSONField(default=dict, help_text="Device id -> bytes, where the pool has several devices.")
    parameters = models.JSONField(default=dict, help_text="Those it was loaded with.")
    is_external = models.BooleanField(default=False, help_text="Somebody else loaded it, past Gantry.")
    is_asleep = models.BooleanField(default=False, help_text="Its server holds it ready without its memory.")
    busy_count = models.PositiveIntegerField(default=0, help_text="Requests it was answering when last looked at.")
    exit_text = models.CharField(max_length=300, blank=True)
    error_code = models.CharField(max_length=40, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    loaded_at = models.DateTimeField(null=True)
    served_until = models.DateTimeField(null=True, help_text="When it crashed, if it was the active one.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["is_active"], condition=models.Q(is_active=True), name="one_active_instance"
            ),
            models.UniqueConstraint(fields=["model"], name="one_instance_per_model"),
        ]

    @override
    def __str__(self) -> str:
        """Model and state."""
        return f"{self.model} {self.state}"
