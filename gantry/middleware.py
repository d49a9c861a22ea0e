"""`/healthz` and `/readyz`, answered before anything else: no session, no sign-in, no check of the host name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import redis
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.db import connection
from django.db.utils import Error as DatabaseFault
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from models_admin import worker_signs

_Handler = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]
_SENTENCES = {
    "database": "The database does not answer.",
    "broker": "The broker does not answer.",
    "worker": "No worker has been heard of in the last 10 seconds.",
}


class HealthMiddleware:
    """Answers GET and HEAD of the two paths itself and passes on everything else.

    /healthz    200 {"status": "ok"} as soon as the web server runs
    /readyz     200 or 503 {"status": "ready" | what is missing, "checks": {"database", "broker", "worker": bool}}
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: _Handler) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer, or pass on."""
        if self.is_async:
            return self._answer_async(request)
        answer = _answers(request)
        return answer() if answer else self.get_response(request)

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        answer = _answers(request)
        if answer:
            return await sync_to_async(answer)()
        return await cast("Awaitable[HttpResponseBase]", self.get_response(request))


def _answers(request: HttpRequest) -> Callable[[], JsonResponse] | None:
    if request.method not in {"GET", "HEAD"}:
        return None
    return {"/healthz": _health, "/readyz": _readiness}.get(request.path_info)


def _health() -> JsonResponse:
    return _response({"status": "ok"}, 200)


def _readiness() -> JsonResponse:
    checks = {"database": _database_answers(), **_broker_checks()}
    missing = [_SENTENCES[name] for name, is_ok in checks.items() if not is_ok]
    return _response({"status": " ".join(missing) or "ready", "checks": checks}, 503 if missing else 200)


def _response(data: dict[str, object], status: int) -> JsonResponse:
    response = JsonResponse(data, status=status, headers={"Cache-Control": "no-store"})
    response._has_been_logged = True  # type: ignore[attr-defined] # noqa: SLF001 - "not ready" is an answer, no fault of the web server
    return response


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFault:
        return False
    return True


def _broker_checks() -> dict[str, bool]:
    """One question answers both: without a broker nobody can tell whether a worker lives."""
    try:
        return {"broker": True, "worker": bool(worker_signs.living_hosts())}
    except redis.RedisError:
        return {"broker": False, "worker": False}
