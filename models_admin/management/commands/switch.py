"""`manage.py switch MODEL [--wait] [--yes] [--context N]`."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from typing_extensions import override

from models_admin import actions
from models_admin.actor import COMMAND
from models_admin.job_requests import SwitchDecision
from models_admin.management.following import JobCommand
from models_admin.models import ModelDefinition
from models_admin.plan_view import plan_view
from models_admin.templatetags.gantry_format import gigabytes, seconds


class Command(JobCommand):
    """Shows the plan to whoever sits in front of it, and asks before anything is unloaded."""

    help = "Make a model the one that serves."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="its id or name")
        parser.add_argument("--wait", action="store_true", help="until it serves, with its progress")
        parser.add_argument(
            "--yes", action="store_true", help="do not ask; also take over from a switch that is half done"
        )
        parser.add_argument("--context", type=int, help="tokens of context for this load")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        model, context = self.find_model(options["model"]), options["context"]
        asks = self.has_terminal and not options["yes"]
        if asks and not self._agrees_to_plan(model, context):
            raise CommandError("Nothing was done.")
        decision = actions.request_switch(
            model, actor=COMMAND, confirm=options["yes"], plan_was_shown=asks, context=context
        )
        if decision.status == "needs_confirmation":
            decision = self._ask_again(model, decision, context, asks=asks)
        if decision.job is None:
            self.stdout.write(f"{model.name} serves already.")
            return
        if decision.status == "joined":
            self.stdout.write(f"A switch to {model.name} is under way already.")
        self.finish([decision.job], waits=options["wait"])

    def _agrees_to_plan(self, model: ModelDefinition, context: int | None) -> bool:
        plan = actions.preview(model, actor=COMMAND, context=context)
        if not plan.evicted:
            return True
        view = plan_view(plan.as_dict())
        needs = f"{gigabytes(view.needed_bytes)} of {gigabytes(view.room_bytes)} that are free then"
        self.stdout.write(f"{view.verb}: about {seconds(view.expected_seconds)}, {needs}. {view.wait_text}".strip())
        return self.confirmed("Go on?")

    def _ask_again(
        self, model: ModelDefinition, decision: SwitchDecision, context: int | None, *, asks: bool
    ) -> SwitchDecision:
        """What policy or a half-done switch wants confirmed."""
        if decision.job is not None:
            why = f"A switch to {decision.job.target_name} is more than half done (asked by {decision.job.requested_by_name})."
        else:
            names = " and ".join(held.name for held in decision.plan.evicted) if decision.plan else "a model"
            why = f"This unloads {names}, which has to be confirmed."
        if not asks:
            raise CommandError(f"{why} Add --yes to do it all the same.")
        if not self.confirmed(f"{why} Take over?"):
            raise CommandError("Nothing was done.")
        return actions.request_switch(model, actor=COMMAND, confirm=True, context=context)
