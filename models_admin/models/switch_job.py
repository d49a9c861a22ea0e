"""A job: one switch, unload or restart."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.urls import reverse
from typing_extensions import override

from gantry.planning.states import ACTIVE_STATES, TERMINAL_STATES, JobKind, JobState
from models_admin.querysets import SwitchJobQuerySet


class SwitchJob(models.Model):
    """One request to change what is loaded, from the click to its end.

    States and their transitions stand in `gantry.planning.states`; `models_admin.job_moves` is the only code that moves them.
    """

    kind = models.CharField(max_length=20, choices=[(k.value, k.value.capitalize()) for k in JobKind])
    state = models.CharField(
        max_length=20, choices=[(s.value, s.value.capitalize()) for s in JobState], default=JobState.WAITING.value
    )
    pool = models.ForeignKey("models_admin.MemoryPool", on_delete=models.PROTECT, related_name="jobs")
    target = models.ForeignKey(
        "models_admin.ModelDefinition", null=True, on_delete=models.SET_NULL, related_name="jobs"
    )
    target_name = models.CharField(max_length=200, help_text="Kept when the model is deleted.")
    from_name = models.CharField(max_length=200, blank=True, help_text="The model that was active before.")
    unloaded = models.JSONField(
        default=list,
        help_text="What was unloaded for the target and is not back yet: {model_id, name, was_active, parameters, devices} each, first one first.",
    )
    superseded_by = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="supersedes")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    requested_by_name = models.CharField(max_length=150)
    via = models.CharField(max_length=20, help_text="page, chat, rest, websocket, gateway, command or system.")
    options = models.JSONField(
        default=dict, help_text="What was asked beside the target: ctx_size for this load, messages of a call."
    )
    result = models.JSONField(default=dict, help_text="What a call answered.")
    plan = models.JSONField(default=dict)
    steps = models.JSONField(default=list, help_text="live.StepSnapshot, one for each step of the plan.")
    percent = models.FloatField(default=0)
    bytes_done = models.BigIntegerField(null=True)
    bytes_total = models.BigIntegerField(null=True)
    eta_seconds = models.FloatField(null=True)
    expected_seconds = models.FloatField(default=0)
    stage_text = models.CharField(max_length=300, blank=True)
    seq = models.PositiveIntegerField(default=0, help_text="Number of its last event.")
    error_code = models.CharField(max_length=40, blank=True)
    error_text = models.TextField(blank=True)
    log_tail = models.TextField(blank=True)
    aftermath = models.CharField(max_length=500, blank=True, help_text="What was done about a failure.")
    rolled_back = models.BooleanField(null=True)
    downtime_seconds = models.FloatField(
        null=True, help_text="How long no model answered; empty when none was active before."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    cancelled_by_name = models.CharField(max_length=150, blank=True)

    objects = SwitchJobQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            # I1: the database, not care, keeps two jobs from working on one pool.
            models.UniqueConstraint(
                fields=["pool"],
                condition=models.Q(state__in=sorted(ACTIVE_STATES)),
                name="one_working_job_per_pool",
            )
        ]
        indexes = [
            # Which jobs are unfinished: asked on every page and every recovery.
            models.Index(
                fields=["state"], condition=~models.Q(state__in=sorted(TERMINAL_STATES)), name="unfinished_jobs"
            ),
        ]

    @override
    def __str__(self) -> str:
        """What it does, as a person would say it."""
        return f"{self.kind} {self.target_name} #{self.pk}"

    def get_absolute_url(self) -> str:
        """Its own page."""
        return reverse("admin:switch_job", args=[self.pk])

    @property
    def is_finished(self) -> bool:
        """It has ended."""
        return self.state in TERMINAL_STATES
