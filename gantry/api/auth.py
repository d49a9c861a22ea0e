"""Who asks: a program by its key, or somebody signed in. The result stands in `request.auth` as an Actor."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from ninja.security import APIKeyCookie, HttpBearer
from ninja.utils import check_csrf
from typing_extensions import override

from models_admin import keys
from models_admin.actor import Actor
from models_admin.exceptions import KeyRefused, NotAllowed

VIA = "rest"
_HEADER = "Authorization"


class ApiRequest(HttpRequest):
    """A request that was let in. For type checking."""

    auth: Actor


class CsrfRefused(NotAllowed):
    """A browser's session was sent without the proof that one of our own pages sent it."""

    code = "csrf_failed"


class KeyAuth(HttpBearer):
    """`Authorization: Bearer gty_…`. Cookies that come with it are ignored, so no CSRF token is needed."""

    openapi_name = "key"

    @override
    def __call__(self, request: HttpRequest) -> Actor | None:
        header = request.headers.get(_HEADER)
        if header is None:
            return None
        token = keys.bearer_token(header)
        if token is None:
            raise KeyRefused("Only the kind Bearer is understood.", "Send “Authorization: Bearer gty_…”.")
        return self.authenticate(request, token)

    @override
    def authenticate(self, request: HttpRequest, token: str) -> Actor:
        """The actor that the key stands for.

        Raises:
            KeyRefused: it cannot be used.
        """
        return keys.authenticate(token, via=VIA, address=request.META.get("REMOTE_ADDR") or "")


class SessionAuth(APIKeyCookie):
    """The cookie of somebody signed in. What changes something needs the CSRF token too (header X-CSRFToken)."""

    openapi_name = "session"
    param_name = settings.SESSION_COOKIE_NAME

    @override
    def __call__(self, request: HttpRequest) -> Actor | None:
        if _HEADER in request.headers or not request.user.is_authenticated:
            return None
        if check_csrf(request) is not None:
            raise CsrfRefused(
                "The CSRF token is missing or wrong.",
                "Send the cookie csrftoken's value as header X-CSRFToken, or use a key instead of the session.",
            )
        return Actor.from_request(request, VIA)

    @override
    def authenticate(self, request: HttpRequest, key: str | None) -> Actor | None:
        """Not asked: Django's middleware has read the cookie."""
        return None
