"""The project package as an app: it holds the management commands."""

from django.apps import AppConfig
from typing_extensions import override


class GantryConfig(AppConfig):
    """Gantry's own commands and checks."""

    name = "gantry"

    @override
    def ready(self) -> None:
        """Register the checks, and make Celery's app the one that every thread of this process sends tasks with."""
        from gantry import celery, checks  # noqa: F401 - registering is what the imports are for
