"""Memory in which models are held."""

from __future__ import annotations

from django.db import models
from typing_extensions import override


class MemoryPool(models.Model):
    """One pool of memory on one host, with the last reading of it.

    A switch plans within one pool, and at most one job works on a pool at a time.
    total = held by models + used by other programs + free.
    """

    host = models.CharField(max_length=100, help_text="Name of the worker that owns it (GANTRY_HOST).")
    name = models.CharField(max_length=100, default="Memory")
    kind = models.CharField(max_length=20, blank=True, help_text="nvml, ram or fixed.")
    total_bytes = models.BigIntegerField(default=0)
    free_bytes = models.BigIntegerField(default=0)
    held_bytes = models.BigIntegerField(default=0)
    devices = models.JSONField(
        default=list,
        blank=True,
        help_text="Its devices, where there are several: {id, name, total_bytes, free_bytes, held_bytes} each.",
    )
    checked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["host"], name="one_pool_per_host")]

    @override
    def __str__(self) -> str:
        """The pool as people name it."""
        return f"{self.name} on {self.host}"

    @property
    def others_bytes(self) -> int:
        """Used by programs that are not Gantry's models."""
        return max(0, self.total_bytes - self.free_bytes - self.held_bytes)
