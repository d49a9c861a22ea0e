"""`manage.py unload MODEL | --all [--wait]`."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from typing_extensions import override

from models_admin import actions
from models_admin.actor import COMMAND
from models_admin.exceptions import NotLoaded
from models_admin.management.following import JobCommand
from models_admin.models import MemoryPool, SwitchJob


class Command(JobCommand):
    """Frees the memory of one model, or of all on all hosts."""

    help = "Unload a model, or all of them, without loading another."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("model", nargs="?", help="its id or name")
        which.add_argument("--all", action="store_true", help="everything that is loaded, pinned models too")
        parser.add_argument("--wait", action="store_true", help="until the memory is free, with the progress")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        if options["all"]:
            jobs = _unload_all()
        else:
            decision = actions.request_unload(self.find_model(options["model"]), actor=COMMAND)
            jobs = [decision.job] if decision.job else []
        self.finish(jobs, waits=options["wait"])


def _unload_all() -> list[SwitchJob]:
    pools = MemoryPool.objects.filter(runtimes__instances__isnull=False).distinct().order_by("host")
    decisions = [actions.request_unload_all(pool, actor=COMMAND) for pool in pools]
    if not decisions:
        raise NotLoaded("No model is loaded.", "There is nothing to unload.")
    return [decision.job for decision in decisions if decision.job]
