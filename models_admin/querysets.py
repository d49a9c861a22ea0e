"""Every reusable filter, annotation and prefetch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from django.db import models

from gantry.planning.states import ACTIVE_STATES, TERMINAL_STATES, JobState

if TYPE_CHECKING:
    from models_admin.models import ModelDefinition, SwitchJob  # noqa: F401 - named in the strings below


class ModelDefinitionQuerySet(models.QuerySet["ModelDefinition"]):
    """Models."""

    def with_runtime(self) -> Self:
        """With runtime and pool, in one query."""
        return self.select_related("runtime__pool")

    def available(self) -> Self:
        """Those whose file is there."""
        return self.filter(is_available=True, runtime__is_enabled=True)


class SwitchJobQuerySet(models.QuerySet["SwitchJob"]):
    """Jobs."""

    def unfinished(self) -> Self:
        """Waiting or at work."""
        return self.exclude(state__in=TERMINAL_STATES)

    def working(self) -> Self:
        """Past waiting and not ended."""
        return self.filter(state__in=ACTIVE_STATES)

    def waiting(self) -> Self:
        """Not begun."""
        return self.filter(state=JobState.WAITING)
