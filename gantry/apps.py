"""The project package as an app: it holds the management commands."""

from django.apps import AppConfig


class GantryConfig(AppConfig):
    """Gantry's own commands."""

    name = "gantry"
