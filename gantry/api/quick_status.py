"""The status for programs that poll it, answered before anything else is done for a request.

Django makes a thread, a database connection and a session for each request, which takes three times as long as the answer itself when
that lies ready. A key needs none of it. Everything else takes the way through Django, sessions and refusals of other methods too.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import markcoroutinefunction
from django.core.exceptions import DisallowedHost
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from gantry.api import status_cache
from gantry.api.auth import KeyAuth
from gantry.api.errors import error_body
from gantry.api.seeds.llm import llm_status_of
from gantry.api.seeds.models_status import models_status_of
from models_admin.exceptions import ActionRefused
from models_admin.job_requests import need_status

LET_IN_SECONDS = 1.0  # a key that was revoked is refused after this long at the latest
_MOST_KEPT = 1000
_DOCUMENTS: dict[str, status_cache.Document] = {
    "/api/llm-status": llm_status_of,
    "/v1/models/status": models_status_of,
}
_Handler = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class QuickStatusMiddleware:
    """Answers `GET` of the two addresses to those who send a key."""

    # Not both: Django would run it in a request's thread then, for the sake of middleware further in that knows no other way.
    sync_capable = False
    async_capable = True

    def __init__(self, get_response: _Handler) -> None:
        self.get_response = get_response
        self._doorkeeper = _Doorkeeper()
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer, or pass on."""
        document = _DOCUMENTS.get(request.path_info)
        if document is None or not _is_meant(request):
            return await self.get_response(request)
        try:
            await self._doorkeeper.let_in(request)
            response = await status_cache.answer_anybody(request, document)
        except ActionRefused as exc:
            response = JsonResponse(error_body(exc), status=exc.status, headers=exc.headers)
        except DatabaseError:
            return await self.get_response(request)  # it says so as everywhere
        response.headers["X-Content-Type-Options"] = "nosniff"  # as Django's own middleware does
        return response


def _is_meant(request: HttpRequest) -> bool:
    if request.method != "GET" or "HTTP_AUTHORIZATION" not in request.META:
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
            DatabaseError: nobody can tell.
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
    except DatabaseError:
        connection.close()  # the next one tries on a new connection
        raise
