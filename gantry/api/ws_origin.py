"""Which pages may open a socket with somebody's session: the same as may send a form, by the rules of Django's CSRF check.

A browser names the page's origin with every socket that it opens, and sends the cookies along to every port of a host.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.http import is_same_domain

_PORTS = {"http": 80, "https": 443}  # what goes without saying


def is_trusted(scope: dict[str, Any]) -> bool:
    """Whether a connection comes from a page of ours, or of one of CSRF_TRUSTED_ORIGINS.

    Ours have the host and port that were asked for, whatever the scheme: behind a proxy that takes TLS off, nobody here knows it.
    A connection without an origin is none of a browser's page, so it is not one of ours either.
    """
    request = ASGIRequest({**scope, "method": "GET"}, BytesIO())
    origin = request.headers.get("Origin", "")
    return _is_own(origin, request) or _is_named(origin)


def _is_own(origin: str, request: ASGIRequest) -> bool:
    scheme = origin.partition(":")[0]
    try:
        # Checked against ALLOWED_HOSTS: a stranger's name may lead here too.
        asked_for = f"{scheme}://{request.get_host()}"
        return scheme in _PORTS and _address(origin) == _address(asked_for)
    except (DisallowedHost, ValueError):
        return False


def _address(origin: str) -> tuple[str | None, int]:
    """Host and port.

    Raises:
        ValueError: that is no address.
    """
    parts = urlsplit(origin)
    return parts.hostname, parts.port or _PORTS[parts.scheme]


def _is_named(origin: str) -> bool:
    csrf = CsrfViewMiddleware(lambda _: HttpResponse())
    if origin in csrf.allowed_origins_exact:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return any(is_same_domain(parts.netloc, host) for host in csrf.allowed_origin_subdomains.get(parts.scheme, ()))
