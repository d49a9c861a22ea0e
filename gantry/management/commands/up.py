"""`manage.py up`: everything that Gantry needs, started by one command and ended with it."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from contextlib import ExitStack, suppress
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils.text import get_text_list
from typing_extensions import override

from gantry.bringup import broker, demo, end_signals, preconditions, records
from gantry.bringup.ending import end_models
from gantry.bringup.exceptions import CannotStart, EndAsked
from gantry.bringup.processes import RunOptions, commands, environment_for
from gantry.bringup.readiness import Announcer, url_of
from gantry.bringup.supervisor import Supervisor
from gantry.env import BASE_DIR, Environment, EnvironmentInvalid, check_host_name, environment
from models_admin.models import ModelDefinition, Runtime
from models_admin.runtime_access import lists_models

ROLES = ("all", "web", "worker", "scheduler")
BROKER_WAIT_SECONDS = 15.0


class Command(BaseCommand):
    """Prepares data directory, broker, database and administrator, then runs web server, worker and scheduler until Ctrl-C.

    A process that ends by itself is started again. Ctrl-C and SIGTERM end everything that was started; role `all` ends the
    models too, while those of a worker that ends alone go on serving and are taken over by the next one.
    """

    help = "Start Gantry: web server, worker and scheduler, with all they need. Ctrl-C ends it."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--demo", action="store_true", help="import two small real models, with memory for one of them"
        )
        parser.add_argument("--role", choices=ROLES, default="all", help="run only this part (default: all)")
        parser.add_argument("--host", help="name of this host for its worker (default: GANTRY_HOST)")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        self.role: str = options["role"]
        self.is_demo: bool = options["demo"]
        end_signals.end_when_asked()
        try:
            self.host = _host(options["host"])
            with ExitStack() as held:
                self._run(held)
        except EndAsked:
            end_signals.ignore()
            self.say("Ended")
        except CannotStart as exc:
            raise CommandError(str(exc)) from exc

    def say(self, line: str) -> None:
        """One line for people; when nobody reads any more, that changes nothing."""
        with suppress(OSError):
            self.stdout.write(line)
            self.stdout.flush()

    def _run(self, held: ExitStack) -> None:
        self._check_surroundings(held)
        supervisor = Supervisor(self.say)
        held.callback(supervisor.close)
        held.callback(end_signals.ignore)
        child_env = environment_for(self.host, self._additions())
        self._start_broker(supervisor, child_env)
        lines = self._prepare_records()
        options = RunOptions(
            self.host, self.env.gantry_bind, self.env.gantry_port, settings.DATA_DIR / "run", settings.LOGGING["level"]
        )
        to_run = commands(self.role, options)
        for name, command in to_run.items():
            supervisor.add(name, command, child_env, BASE_DIR)
        self.say(f"Starting {get_text_list(list(to_run), 'and')}")
        supervisor.on_turn = self._announcer(lines)
        connections.close_all()  # the processes are forked from this one and must not share a connection
        # The manager listens to the other two; a terminal that is closed ends everything in the same order.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        try:
            supervisor.loop()
        finally:
            end_signals.ignore()
            supervisor.close()
            if self.role == "all":
                end_models(self.host, self.say)
        self.say("Ended")

    @property
    def env(self) -> Environment:
        """What the operator set."""
        return environment()

    def _check_surroundings(self, held: ExitStack) -> None:
        for lock in preconditions.take_locks(settings.DATA_DIR, self.role, self.host):
            held.enter_context(lock)
        if self.role in {"all", "web"}:
            preconditions.require_free_port(self.env.gantry_bind, self.env.gantry_port)
        preconditions.require_models_dir(settings.MODELS_DIR, settings.DATA_DIR / "models")

    def _additions(self) -> dict[str, str]:
        if not self.is_demo or "gantry_memory" in self.env.model_fields_set:
            return {}
        self.say("Giving the models 440 MiB together: room for one of the two at a time (GANTRY_MEMORY changes it)")
        return {"GANTRY_MEMORY": demo.MEMORY}

    def _start_broker(self, supervisor: Supervisor, child_env: dict[str, str]) -> None:
        url = settings.REDIS_URL
        if self.role == "all" and settings.REDIS_IS_EMBEDDED:
            self.say("Starting the embedded Valkey")
            folder, log_file = settings.DATA_DIR / "valkey", settings.LOG_DIR / "valkey.log"
            command = broker.embedded_command(settings.VALKEY_SOCKET, folder, log_file)
            supervisor.add(broker.NAME, command, child_env, BASE_DIR, ends_last=True)
            supervisor.start(broker.NAME)
            if not supervisor.wait_for(lambda: broker.answers(url), broker.NAME, BROKER_WAIT_SECONDS):
                raise CannotStart(
                    f"The embedded Valkey does not start; {log_file} tells why. "
                    f"If its data is damaged, remove {folder}: nothing that lasts is kept there."
                )
        else:
            broker.require_answer(url, is_embedded=settings.REDIS_IS_EMBEDDED)

    def _prepare_records(self) -> list[str]:
        """Bring the database up to what the role needs. Returns what to tell people once everything runs."""
        if self.role not in {"all", "web"}:
            records.await_migrations(self.say)
        else:
            records.migrate(self.say)
        if self.role in {"all", "worker"}:
            runtimes = records.ensure_runtimes(self.host)
            for line in records.require_runtimes(runtimes):
                self.say(f"Found {line}")
            if self.is_demo:
                self._import_demo(runtimes)
        if self.role not in {"all", "web"}:
            return [
                f"The {self.role} runs. Ctrl-C ends it"
                + ("; its models go on serving" if self.role == "worker" else "")
            ]
        name, created = records.ensure_administrator(self.env)
        if created:
            self.say(created)
        return self._welcome(name)

    def _import_demo(self, runtimes: list[Runtime]) -> None:
        for model in demo.prepare_demo(settings.DATA_DIR / "models", runtimes, self.say):
            self.say(f"Added the model {model.name}")

    def _welcome(self, user_name: str) -> list[str]:
        url = url_of(self.env.gantry_bind, self.env.gantry_port)
        runtimes = Runtime.objects.filter(is_enabled=True)
        has_models = ModelDefinition.objects.available().exists() or any(map(lists_models, runtimes))
        first_step = (
            "Under Models, click Switch beside a model" if has_models else "Under Models, add a model and switch to it"
        )
        return [
            f"Ready: open {url}admin/ and sign in as {user_name}",
            f"{first_step}; then chat with it at {url}",
            "Ctrl-C ends everything",
        ]

    def _announcer(self, lines: list[str]) -> Announcer:
        url = url_of(self.env.gantry_bind, self.env.gantry_port)
        path = {"all": "readyz", "web": "healthz"}.get(self.role)
        return Announcer(url + path if path else "", lines, self.say)


def _host(name: str | None) -> str:
    try:
        return check_host_name(name or settings.HOST_NAME)
    except EnvironmentInvalid as exc:
        raise CannotStart(f"--host: {exc}") from exc
