"""Which pages may open a socket with somebody's session: ours, by host and port, and those that CSRF_TRUSTED_ORIGINS names."""

from __future__ import annotations

from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User

from gantry.asgi import application
from models_admin.models import MemoryPool
from tests.integration.program_sockets import SECONDS, connected, cookie_of, key_of

pytestmark = pytest.mark.django_db(transaction=True)

PATHS = ["/ws/events", "/ws/llm", "/ws/models/", "/ws/chat/"]


@pytest.fixture(autouse=True)
def _hosts(settings: Any) -> None:
    """A Gantry that people open as gantry.example."""
    settings.ALLOWED_HOSTS = ["gantry.example", "[::1]"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://tower.example", "https://*.corp.example:8443"]


async def opens(person: User, host: str, origin: str | None, path: str = PATHS[0]) -> bool:
    """Whether a page of `origin` gets a socket with the person's cookie."""
    cookies = [header for header in await cookie_of(person) if header[0] == b"cookie"]
    origins = [(b"origin", origin.encode())] if origin is not None else []
    communicator: Any = WebsocketCommunicator(application, path, headers=[(b"host", host.encode()), *origins, *cookies])
    is_open, _ = await communicator.connect(timeout=SECONDS)
    if is_open:
        await communicator.disconnect(timeout=SECONDS)
    return bool(is_open)


@pytest.mark.parametrize("path", PATHS)
async def test_page_of_another_port_of_the_same_host_opens_no_socket(
    path: str, admin_person: User, pool: MemoryPool
) -> None:
    assert await opens(admin_person, "gantry.example:8000", "http://gantry.example:8000", path)
    assert not await opens(admin_person, "gantry.example:8000", "http://gantry.example:9000", path)
    assert not await opens(admin_person, "gantry.example:8000", "http://gantry.example", path)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("gantry.example", "http://gantry.example"),
        ("gantry.example", "https://gantry.example"),  # a proxy has taken TLS off
        ("gantry.example:443", "https://gantry.example"),  # a browser leaves out the port that goes without saying
        ("gantry.example:8443", "https://gantry.example:8443"),
        ("GANTRY.example", "http://gantry.example"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("127.0.0.1:8000", "https://tower.example"),  # a proxy that asks by an address of its own
        ("gantry.example", "https://a.corp.example:8443"),
    ],
)
async def test_pages_of_ours_open_one(host: str, origin: str, admin_person: User, pool: MemoryPool) -> None:
    assert await opens(admin_person, host, origin)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("gantry.example:443", "http://gantry.example"),
        ("gantry.example", "http://evil.example"),
        ("evil.example", "http://evil.example"),  # a name of theirs that leads here
        ("gantry.example", "http://tower.example"),
        ("gantry.example", "https://tower.example:8443"),
        ("gantry.example", "https://a.corp.example"),
        ("gantry.example", "ftp://gantry.example"),
        ("gantry.example", "http://gantry.example:many"),
        ("gantry.example", "http://["),
        ("gantry.example", "null"),
        ("gantry.example", ""),
        ("gantry.example", None),  # with a cookie and without an origin comes no browser
    ],
)
async def test_others_do_not(host: str, origin: str | None, admin_person: User, pool: MemoryPool) -> None:
    assert not await opens(admin_person, host, origin)


async def test_program_with_a_key_needs_no_origin_whatever_the_host(admin_person: User, pool: MemoryPool) -> None:
    async with connected(PATHS[0], [(b"host", b"10.0.0.9:8000"), *await key_of(admin_person, "status")]) as program:
        assert (await program.next())["type"] == "snapshot"
