"""The first rows: schema, host, runtime, administrator."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import DatabaseError

from gantry.bringup.exceptions import CannotStart
from gantry.env import environment
from gantry.planning.states import ErrorCode
from gantry.planning.wording import wording
from models_admin.actor import COMMAND
from models_admin.audit_signals import accounts_noted
from models_admin.models import MemoryPool, Runtime
from models_admin.runtime_access import KEY_FROM_ENVIRONMENT, runtime_for

if TYPE_CHECKING:
    from gantry.env import Environment

MIGRATION_WAIT_SECONDS = 60.0


def migrate(say: Callable[[str], None]) -> None:
    """Bring the database up to date."""
    count = pending_migrations()
    if count:
        say(f"Bringing the database up to date ({count} step{'' if count == 1 else 's'})")
        call_command("migrate", interactive=False, verbosity=0)


def await_migrations(say: Callable[[str], None]) -> None:
    """Wait until another process (role web or all) has brought the database up to date."""
    deadline = time.monotonic() + MIGRATION_WAIT_SECONDS
    if pending_migrations():
        say("Waiting for the web role to bring the database up to date")
    while pending_migrations():
        if time.monotonic() > deadline:
            raise CannotStart("The database is not up to date: start the web role, or run `manage.py migrate`.")
        time.sleep(1)


def pending_migrations() -> int:
    """Steps that the database lacks.

    Raises:
        CannotStart: the database does not answer.
    """
    try:
        executor = MigrationExecutor(connection)
    except DatabaseError as exc:
        reason = str(exc).strip().splitlines()[0]
        raise CannotStart(f"The database does not answer ({reason}): check DATABASE_URL and that it runs.") from exc
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def ensure_runtimes(host: str) -> list[Runtime]:
    """The runtimes of this host; on its first start, a pool and a llama-server are written down."""
    pool, _ = MemoryPool.objects.get_or_create(host=host)
    if not pool.runtimes.exists():
        name = "llama-server" if host == settings.HOST_NAME == "local" else f"llama-server on {host}"
        Runtime.objects.get_or_create(name=name, defaults={"kind": Runtime.Kind.LLAMA_SERVER, "pool": pool})
    _ensure_tabby(pool)
    return list(pool.runtimes.filter(is_enabled=True))


def _ensure_tabby(pool: MemoryPool) -> None:
    """The TabbyAPI that TABBY_HOST names. Its keys stay in the environment; only the variables' names are stored."""
    url = environment().tabby_host
    if not url or Runtime.objects.filter(kind=Runtime.Kind.TABBY, url=url).exists():
        return
    Runtime.objects.update_or_create(
        name="TabbyAPI",
        defaults={
            "kind": Runtime.Kind.TABBY,
            "pool": pool,
            "url": url,
            "api_key": f"{KEY_FROM_ENVIRONMENT}TABBY_API_KEY",
            "admin_key": f"{KEY_FROM_ENVIRONMENT}TABBY_ADMIN_KEY",
        },
    )


def require_runtimes(runtimes: list[Runtime]) -> list[str]:
    """What the programs call themselves that will hold models.

    Raises:
        CannotStart: one that Gantry starts itself is missing or cannot run here.
    """
    return [_require(row) for row in runtimes if runtime_for(row).capabilities.owns_processes]


def _require(row: Runtime) -> str:
    health = runtime_for(row).check()
    if not health.is_ok:
        words = wording(health.code or ErrorCode.RUNTIME_MISSING)
        raise CannotStart(health.detail or f"{words.sentence} {words.hint}")
    return health.version or row.name


def ensure_administrator(env: Environment) -> tuple[str, str | None]:
    """The first administrator's name; when there was none, one is created.

    Returns:
        The name, and a line for people about the one created.
    """
    first = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if first:
        return first.username, None
    name = env.django_superuser_username or "admin"
    if User.objects.filter(username=name).exists():
        raise CannotStart(
            f"There is no administrator, and {name} is somebody else's name: set DJANGO_SUPERUSER_USERNAME to another one."
        )
    given = env.django_superuser_password
    password = given or secrets.token_urlsafe(12)
    with transaction.atomic(), accounts_noted(COMMAND):
        User.objects.create_superuser(name, env.django_superuser_email, password)
    how = "the password of DJANGO_SUPERUSER_PASSWORD" if given else f"password {password} (shown this once)"
    return name, f"Created the administrator {name} with {how}"
