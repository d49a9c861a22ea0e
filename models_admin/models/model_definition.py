"""A model that can be served."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse
from typing_extensions import override

from models_admin.querysets import ModelDefinitionQuerySet

valid_model_id = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._:/+-]{0,199}\Z",
    "Use letters, digits and . _ : / + - only, starting with a letter or digit.",
)


class ModelDefinition(models.Model):
    """A model: its file, what is known of it, and the parameters it is loaded with.

    What is loaded now stands in `ModelInstance`; this row stays when nothing is.
    """

    class Source(models.TextChoices):
        MANUAL = "manual", "Entered by hand"
        YAML = "yaml", "models.yaml"
        SCAN = "scan", "Found by a scan"

    model_id = models.CharField("model id", max_length=200, unique=True, validators=[valid_model_id])
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    runtime = models.ForeignKey("models_admin.Runtime", on_delete=models.PROTECT, related_name="definitions")
    path = models.CharField(
        max_length=1000, blank=True, help_text="The GGUF file; a relative path starts at GANTRY_MODELS_DIR."
    )
    size_bytes = models.BigIntegerField(default=0, help_text="Bytes of all its files.")
    quantization = models.CharField(max_length=50, blank=True)
    parameter_label = models.CharField("parameters", max_length=50, blank=True, help_text='As people say it: "20B".')
    architecture = models.CharField(max_length=100, blank=True)
    context_length = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens it was trained for.")
    metadata = models.JSONField(default=dict, blank=True, editable=False, help_text="Facts read from the file.")
    parameters = models.JSONField(default=dict, blank=True, help_text="How it is loaded: ctx_size, n_gpu_layers …")
    extra_args = models.JSONField(default=list, blank=True, help_text="Further arguments for the server, as a list.")
    chat_template = models.TextField(blank=True, help_text="Jinja template, when the file has none.")
    sampling = models.JSONField(default=dict, blank=True, help_text="Defaults for chat: temperature, stop …")
    tags = models.JSONField(default=list, blank=True, help_text="What it is good for: chat, coding …")
    is_pinned = models.BooleanField("pinned", default=False, help_text="Never unloaded by a switch to another model.")
    idle_minutes = models.PositiveIntegerField(
        "unload when idle",
        null=True,
        blank=True,
        help_text="Minutes without use after which it is unloaded. Empty: never. A pinned model stays.",
    )
    devices = models.JSONField(
        default=list, blank=True, help_text="Ids of the GPUs it is loaded on, as a list. Empty: chosen for each load."
    )
    is_available = models.BooleanField(default=False, editable=False, help_text="Its file is there.")
    source = models.CharField(max_length=20, choices=Source, default=Source.MANUAL, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error_code = models.CharField(max_length=40, blank=True, editable=False)
    last_error_text = models.TextField(blank=True, editable=False)
    last_failed_at = models.DateTimeField(null=True, blank=True, editable=False)
    crash_times = models.JSONField(
        default=list, blank=True, editable=False, help_text="When its process died lately, seconds since the epoch."
    )
    paused_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Not restarted by itself before; it kept crashing."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ModelDefinitionQuerySet.as_manager()

    class Meta:
        verbose_name = "model"
        ordering = ["name", "model_id"]
        permissions = [
            ("chat", "Can chat with the model that serves"),
            ("see_status", "Can see which model serves, and how a switch goes"),
            ("switch_model", "Can switch, unload and restart models"),
            ("cancel_any_job", "Can cancel switches of others"),
        ]

    @override
    def __str__(self) -> str:
        """Its name."""
        return self.name

    def get_absolute_url(self) -> str:
        """Its page in the admin."""
        return reverse("admin:models_admin_modeldefinition_change", args=[self.pk])

    @property
    def is_embedding(self) -> bool:
        """It makes embeddings and cannot chat."""
        return "embedding" in self.tags
