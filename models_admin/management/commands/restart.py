"""`manage.py restart MODEL [--wait]`."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from typing_extensions import override

from models_admin import actions
from models_admin.actor import COMMAND
from models_admin.management.following import JobCommand


class Command(JobCommand):
    """Ends a model's server, or clears away what is left of it, and loads it again."""

    help = "Unload a model and load it again."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="its id or name")
        parser.add_argument("--wait", action="store_true", help="until it serves again, with its progress")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        decision = actions.request_restart(self.find_model(options["model"]), actor=COMMAND)
        self.finish([decision.job] if decision.job else [], waits=options["wait"])
