"""`/healthz` and `/readyz`, answered before anything else; and in which thread a request's middleware runs."""

from __future__ import annotations

from collections.abc import Callable

import redis
from django.db import connection
from django.db.utils import Error as DatabaseFault
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from models_admin import worker_signs

_Handler = Callable[[HttpRequest], HttpResponseBase]
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

    def __init__(self, get_response: _Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer, or pass on."""
        answer = _answers(request)
        return answer() if answer else self.get_response(request)


class OneThreadMiddleware:
    """Does nothing, and stands last: from here outwards all middleware runs in the one thread of its request.

    Django's own can run on the event loop too, and then each of them goes to that thread and back twice: 3 ms more for every request.
    Views that are asynchronous run on the event loop all the same, and what they stream is sent from there.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: _Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass on."""
        return self.get_response(request)


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
