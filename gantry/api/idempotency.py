"""`Idempotency-Key` on POST: what came through twice is done once (models_admin.idempotency says what is kept, and where)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Router

from models_admin import idempotency
from models_admin.idempotency import LONGEST_KEY, Claim

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"  # "true" on an answer that was given before
# For `openapi_extra=` of an operation that creates something.
PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "in": "header",
            "name": HEADER,
            "required": False,
            "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": r"^[!-~]+$"},
            "description": "Any text of yours, new for each new request. The same again within 24 hours gets the first answer again "
            "and does nothing; with another body it is refused (422, `idempotency_key_reused`), and while the first is worked on too "
            "(409, `idempotency_in_progress`). A refused request may be sent again with the same key.",
        }
    ]
}


def make_idempotent(router: Router) -> None:
    """Have every POST of a router heed the header."""
    router.add_decorator(_claimed, mode="operation")
    router.add_decorator(_kept, mode="view")


def _claimed(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Around the function itself: here it is known who asks, and that the body can be read."""

    @wraps(operation)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        key = request.headers.get(HEADER)
        if request.method != "POST" or key is None:
            return operation(request, *args, **kwargs)
        found = idempotency.claim(request.auth, request.path, key, request.body)  # type: ignore[attr-defined]
        if isinstance(found, Claim):
            request.idempotency_claim = found  # type: ignore[attr-defined]
            return operation(request, *args, **kwargs)
        return _again(found.status or 200, found.body, found.location)

    return answer


def _kept(run: Callable[..., Any]) -> Callable[..., Any]:
    """Around everything: here the answer is known."""

    @wraps(run)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if request.method != "POST":
            return run(request, *args, **kwargs)
        try:
            response = run(request, *args, **kwargs)
        except BaseException:
            _end(request, None)
            raise
        _end(request, response)
        return response

    return answer


def _end(request: HttpRequest, response: HttpResponse | None) -> None:
    claim: Claim | None = getattr(request, "idempotency_claim", None)
    if claim is None:
        return
    if response is not None and response.status_code < 300:
        claim.keep(response.status_code, response.content.decode(), response.headers.get("Location", ""))
    else:
        claim.release()


def _again(status: int, body: str, location: str) -> HttpResponse:
    headers = {REPLAYED: "true", **({"Location": location} if location else {})}
    return HttpResponse(body, status=status, content_type="application/json; charset=utf-8", headers=headers)
