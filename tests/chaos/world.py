"""The whole Gantry that chaos is let loose on: its models, its people, what it may hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import django
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from tests.chaos.decoy import Decoy
from tests.chaos.people import Person
from tests.functional.stack import ADMIN_NAME, ADMIN_PASSWORD, Stack, start_stack
from tests.tiny_gguf import write_tiny_model

if TYPE_CHECKING:
    from django.contrib.auth.models import Permission
    from django.db.models import QuerySet

MIB = 1024**2
# The large one leaves room for one of the small ones, the two middle ones for both: nearly every switch unloads something.
MEMORY = "fixed:840MiB"
DRAIN_SECONDS = 5.0  # instead of 30, so that a round is not mostly waiting


@dataclass(frozen=True, slots=True)
class Model:
    """A model of this world."""

    pk: int
    model_id: str
    path: Path
    is_slow: bool


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    padding_bytes: int  # of zeros, which have to be read all the same
    max_tokens: int


# Read, not mapped, so that what they hold is theirs alone. 600 MiB take two seconds from a cold cache.
_FILES = (
    _File("tiny", 0, 400),
    _File("small", 60 * MIB, 120),
    _File("middle-one", 250 * MIB, 60),
    _File("middle-two", 250 * MIB, 60),
    _File("large", 600 * MIB, 40),
)
_SLOW_BYTES = 200 * MIB


@dataclass
class World:
    """A running Gantry with everything that a round needs."""

    stack: Stack
    models: list[Model]
    people: list[Person]
    decoy: Decoy
    pool_pk: int
    secrets: set[str] = field(default_factory=set)

    @property
    def runtime_dir(self) -> Path:
        """Where model processes live."""
        return self.stack.data_dir / "runtime"

    @property
    def slow(self) -> list[int]:
        """Places of the models that take long to load."""
        return [place for place, model in enumerate(self.models) if model.is_slow]

    def model_of(self, model_id: str) -> Model:
        """By its id."""
        return next(model for model in self.models if model.model_id == model_id)

    def cool(self) -> None:
        """Let the kernel forget the large files, so that the next load has to read them."""
        for model in self.models:
            if model.is_slow:
                _drop_from_cache(model.path)


@contextmanager
def world(folder: Path, seed: int) -> Iterator[World]:
    """Start everything, and end everything again.

    Raises:
        AssertionError: Gantry did not start, or did not end when asked.
    """
    data_dir = folder / "data"
    for file in _FILES:
        _write(data_dir / "models" / f"{file.name}.gguf", file)
    with ExitStack() as held:
        stack = start_stack(data_dir, {"GANTRY_MEMORY": MEMORY})
        held.callback(stack.stop)
        _set_up_django(stack)
        held.callback(connections.close_all)
        models, pool_pk = _write_rows(data_dir / "models", Random(f"{seed}:policy"))
        _forbid_writing()
        decoy = Decoy.start(data_dir / "models" / "tiny.gguf", folder / "decoy")
        held.callback(decoy.end)
        people = _sign_in_all(stack.url.rstrip("/"))
        yield World(stack, models, people, decoy, pool_pk, {ADMIN_PASSWORD})
        for person in people:
            person.close()


def _write(path: Path, file: _File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Many layers rather than wide ones: these would need a large buffer for what is computed in between.
    write_tiny_model(path, padding_bytes=file.padding_bytes, n_layers=32, name=file.name)


def _set_up_django(stack: Stack) -> None:
    """This process looks at the same rows: it has the same settings as the Gantry that was started."""
    os.environ.update(stack.environment)
    django.setup()


def _write_rows(models_dir: Path, rng: Random) -> tuple[list[Model], int]:
    from django.contrib.auth.models import User

    from models_admin import catalog
    from models_admin.actor import COMMAND
    from models_admin.models import MemoryPool, ModelDefinition

    catalog.import_folder(models_dir, actor=COMMAND)
    for file in _FILES:
        ModelDefinition.objects.filter(path=f"{file.name}.gguf").update(
            parameters={"ctx_size": 2048, "threads": 1, "parallel": 4, "no_mmap": True},
            sampling={"max_tokens": file.max_tokens},
        )
    for name, permissions in _PEOPLE.items():
        user = User.objects.create_user(name, password=f"pass-{name}", is_staff="view_modeldefinition" in permissions)
        user.user_permissions.set(_permissions(permissions))
    _draw_policy(rng)
    pks = dict(ModelDefinition.objects.values_list("path", "pk"))
    ids = dict(ModelDefinition.objects.values_list("path", "model_id"))
    models = [
        Model(pks[path], ids[path], models_dir / path, file.padding_bytes > _SLOW_BYTES)
        for file in _FILES
        if (path := f"{file.name}.gguf")
    ]
    return models, MemoryPool.objects.get().pk


_PEOPLE: dict[str, Sequence[str]] = {
    "ben": ("view_modeldefinition", "view_switchjob", "switch_model"),
    "cleo": ("view_modeldefinition", "view_switchjob", "switch_model", "cancel_any_job", "change_modeldefinition"),
    "dora": ("switch_model",),  # on the chat page only
}


def _permissions(names: Sequence[str]) -> QuerySet[Permission]:
    from django.contrib.auth.models import Permission

    return Permission.objects.filter(codename__in=names, content_type__app_label="models_admin")


def _draw_policy(rng: Random) -> None:
    """Each seed has a policy of its own."""
    from models_admin.models import SwitchPolicy

    policy = SwitchPolicy.current()
    policy.drain_seconds = DRAIN_SECONDS
    policy.strategy = rng.choice(SwitchPolicy.Strategy.values)
    policy.keep_former = rng.random() < 0.5
    policy.restart_crashed = rng.random() < 0.5
    policy.save()


def _forbid_writing() -> None:
    """From now on this process only looks."""
    connections.close_all()
    connection_created.connect(_make_read_only, dispatch_uid="chaos")


def _make_read_only(connection: BaseDatabaseWrapper, **_signal: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = 1")


def _sign_in_all(base_url: str) -> list[Person]:
    people = [Person(ADMIN_NAME, ADMIN_PASSWORD, base_url, may_use_admin=True)]
    people += [
        Person(name, f"pass-{name}", base_url, may_use_admin="view_modeldefinition" in permissions)
        for name, permissions in _PEOPLE.items()
    ]
    for person in people:
        person.sign_in()
    return people


def _drop_from_cache(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
