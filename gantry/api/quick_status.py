"""The status for programs that poll it, answered before anything else is done for a request.

Django makes a thread, a database connection and a session for each request, which takes three times as long as the answer itself when
that lies ready. A key needs none of it. Everything else takes the way through Django, sessions and refusals of other methods too.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError, InterfaceError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from gantry.api import status_cache
from gantry.api.auth import KeyAuth
from gantry.api.errors import error_body
from gantry.api.seeds.llm import llm_status_of
from gantry.api.seeds.models_status import models_status_of
from models_admin.exceptions import ActionRefused
from models_admin.job_requests import need_status

LET_IN_SECONDS = 1.0  # a key that was revoked is refused after this long at the latest
_MOST_KEPT = 1000
_DATABASE_ERRORS = (DatabaseError, InterfaceError)  # neither is a kind of the other
_DOCUMENTS: dict[str, status_cache.Document] = {
    "/api/llm-status": llm_status_of,
    "/v1/models/status": models_status_of,
}
_Receive = Callable[[], Awaitable[Mapping[str, Any]]]
_Send = Callable[[Mapping[str, Any]], Awaitable[None]]
_Application = Callable[[dict[str, Any], _Receive, _Send], Awaitable[None]]


class QuickStatus:
    """Stands before Django: answers `GET` of the two addresses to those who send a key, and passes on everything else."""

    def __init__(self, application: _Application) -> None:
        self._application = application
        self._doorkeeper = _Doorkeeper()

    async def __call__(self, scope: dict[str, Any], receive: _Receive, send: _Send) -> None:
        """One request (ASGI, https://asgi.readthedocs.io/en/latest/specs/www.html)."""
        response = await self._answer(scope)
        if response is None:
            await self._application(scope, receive, send)
            return
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
        headers.append((b"content-length", str(len(response.content)).encode()))
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.content})

    async def _answer(self, scope: dict[str, Any]) -> HttpResponse | None:
        document = _DOCUMENTS.get(scope["path"])
        if document is None or scope["method"] != "GET":
            return None
        request = ASGIRequest(scope, BytesIO())
        if not _is_meant(request):
            return None
        try:
            await self._doorkeeper.let_in(request)
            response = await status_cache.answer_anybody(request, document)
        except ActionRefused as exc:
            response = JsonResponse(error_body(exc), status=exc.status, headers=exc.headers)
        except _DATABASE_ERRORS:
            return None  # Django says so as everywhere
        response.headers["X-Content-Type-Options"] = "nosniff"  # as Django's own middleware does
        return response


def _is_meant(request: HttpRequest) -> bool:
    if "HTTP_AUTHORIZATION" not in request.META:
        return False
    try:
        request.get_host()
    except DisallowedHost:
        return False
    return True


class _Doorkeeper:
    """Knows for a moment who may see the status. One thread with one connection asks the database, whoever comes."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "status-keys")
        self._until: OrderedDict[bytes, float] = OrderedDict()  # by a hash of what was sent, on the monotonic clock

    async def let_in(self, request: HttpRequest) -> None:
        """Do nothing for whoever may see the status.

        Raises:
            KeyRefused, NotAllowed: they may not.
            DatabaseError, InterfaceError: nobody can tell.
        """
        sent = hashlib.sha256(request.META["HTTP_AUTHORIZATION"].encode()).digest()
        if self._until.get(sent, 0.0) > time.monotonic():
            return
        until = time.monotonic() + LET_IN_SECONDS
        await asyncio.get_running_loop().run_in_executor(self._thread, _check, request)
        self._until[sent] = until
        while len(self._until) > _MOST_KEPT:
            self._until.popitem(last=False)


def _check(request: HttpRequest) -> None:
    try:
        actor = KeyAuth()(request)
        assert actor is not None  # noqa: S101 - there is a header
        need_status(actor)
    except _DATABASE_ERRORS:
        connection.close()  # the next one tries on a new connection
        raise
