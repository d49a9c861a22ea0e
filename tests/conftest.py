"""Fixtures for all tests: three standing users, a host with its pool and runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asgiref.sync import SyncToAsync
from django.contrib.auth.models import Permission, User
from django.db import connection, connections
from pytest_django import DjangoDbBlocker

from models_admin import audit_triggers
from models_admin.models import MemoryPool, Runtime

GIB = 1024**3


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The test database, without the triggers that keep audit entries: a test that commits is cleaned up by emptying all tables.

    asgiref's own thread outlives the tests, and PostgreSQL lets no database go that somebody looks at.
    """
    with django_db_blocker.unblock():
        audit_triggers.drop(connection)
    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture
def admin_person(db: None) -> User:
    """May do everything."""
    return User.objects.create_superuser("ann", password="pass-ann")


@pytest.fixture
def member(db: None) -> User:
    """May chat and switch; not staff."""
    user = User.objects.create_user("ben", password="pass-ben")
    user.user_permissions.add(Permission.objects.get(codename="switch_model"))
    return user


@pytest.fixture
def outsider(db: None) -> User:
    """May sign in and chat, nothing more."""
    return User.objects.create_user("oda", password="pass-oda")


@pytest.fixture
def pool(db: None) -> MemoryPool:
    """One GiB, all free."""
    return MemoryPool.objects.create(host="local", name="Fixed pool", kind="fixed", total_bytes=GIB, free_bytes=GIB)


@pytest.fixture
def null_runtime(pool: MemoryPool) -> Runtime:
    """A runtime that holds models in memory of the test only."""
    return Runtime.objects.create(name="null", kind="null", pool=pool, is_healthy=True)
