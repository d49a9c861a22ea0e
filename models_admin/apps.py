"""The app an administrator works in."""

from django.apps import AppConfig


class ModelsAdminConfig(AppConfig):
    """Models, runtimes, switches and the audit."""

    name = "models_admin"
    verbose_name = "Models"
