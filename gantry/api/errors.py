"""The one shape of every refusal, and the one place where what an action raises becomes an HTTP answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError, HttpError, ValidationError
from pydantic import Field

from gantry.api.reading import BodyUnreadable
from gantry.planning.ways_out import WayOut
from gantry.strict_json import NotStrictJSON
from models_admin.actions import SwitchDecision
from models_admin.exceptions import (
    ActionRefused,
    AnotherJobRunning,
    DoesNotFitNow,
    InvalidDefinition,
    KeyRefused,
    RateLimited,
    Unavailable,
)

log = structlog.get_logger(__name__)

DOCS_HINT = "The documentation is at /api/v1/docs."
_CODES = {
    400: "bad_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    411: "length_required",
    413: "body_too_large",
    500: "internal",
}
_UNAUTHENTICATED = KeyRefused(
    "Nobody is signed in, and no key was sent.",
    "Send “Authorization: Bearer gty_…” with a key from the page API keys, or sign in.",
)
DATABASE_AWAY = Unavailable("The database does not answer.", "Try again in a moment.")


class NeedsConfirmation(ActionRefused):
    """Nothing was done, because it has to be confirmed first: ask again, with the same and `confirm` true.

    Either another switch is half done (`decision.job`), or policy wants a plan confirmed that unloads something (`decision.plan`).
    """

    code = "needs_confirmation"

    def __init__(self, decision: SwitchDecision) -> None:
        job = decision.job
        sentence = (
            f"Another switch, to {job.target_name}, is {int(job.percent)} % done (asked by {job.requested_by_name})."
            if job
            else "This would unload a model."
        )
        super().__init__(sentence, "Send the same again with “confirm”: true to go on all the same.")
        self.decision = decision


class ErrorBody(Schema):
    """Why something was refused."""

    detail: str = Field(description="One or two sentences for people: what happened.")
    code: str = Field(description="For programs; does not change with the wording.", examples=["model_unknown"])
    hint: str = Field("", description="What to do about it; may be empty.")
    data: dict[str, Any] = Field(
        default_factory=dict,
        description="What belongs to the code: `errors` [{field, message}], `retry_after` (seconds), `job_id`, `percent`, `plan`, "
        "`required_bytes`, `available_bytes`, `freeable_bytes`, `ways_out`.",
    )


# For `response=` of an operation: what any of them may answer beside its own.
ERRORS: dict[Any, Any] = {frozenset({400, 401, 403, 404, 409, 411, 413, 422, 429, 503}): ErrorBody}


def error_body(exc: ActionRefused) -> dict[str, Any]:
    """An ErrorBody as JSON makes it, also for streams and sockets."""
    return {"detail": str(exc), "code": exc.code, "hint": exc.hint, "data": _data(exc)}


def plain_body(status: int, detail: str, **data: Any) -> dict[str, Any]:
    """An ErrorBody for what no action has refused: the code goes with the status."""
    return {"detail": detail, "code": _CODES.get(status, "refused"), "hint": DOCS_HINT, "data": data}


def answer_refusals(api: NinjaAPI) -> None:
    """Have everything that an operation can raise answered in the one shape."""

    def refused(request: HttpRequest, exc: ActionRefused) -> HttpResponse:
        return _answer(api, request, exc.status, error_body(exc), exc.headers)

    def unauthenticated(request: HttpRequest, exc: AuthenticationError) -> HttpResponse:
        return refused(request, _UNAUTHENTICATED)

    def invalid(request: HttpRequest, exc: ValidationError) -> HttpResponse:
        errors = [{"field": _field(error["loc"]), "message": error["msg"]} for error in exc.errors]
        detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors[:3])
        return _answer(api, request, 422, {**plain_body(422, detail, errors=errors), "code": "invalid"})

    def http_error(request: HttpRequest, exc: HttpError) -> HttpResponse:
        # ninja says of any body that it cannot be parsed; what was read of it says why.
        reason = exc.__cause__ if isinstance(exc.__cause__, NotStrictJSON | BodyUnreadable) else exc
        return _answer(api, request, exc.status_code, plain_body(exc.status_code, str(reason)))

    def missing(request: HttpRequest, exc: Http404) -> HttpResponse:
        return _answer(api, request, 404, plain_body(404, str(exc) or "There is no such thing."))

    def unreadable(request: HttpRequest, exc: BodyUnreadable) -> HttpResponse:
        return _answer(api, request, 400, plain_body(400, str(exc)))

    def too_large(request: HttpRequest, exc: RequestDataTooBig) -> HttpResponse:
        return _answer(api, request, 413, plain_body(413, "The body of the request is too large."))

    def database_away(request: HttpRequest, exc: Exception) -> HttpResponse:
        log.warning("database_away", reason=str(exc), path=request.path)
        return refused(request, DATABASE_AWAY)

    answers: dict[type[Exception], Callable[..., HttpResponse]] = {
        ActionRefused: refused,
        AuthenticationError: unauthenticated,
        ValidationError: invalid,
        HttpError: http_error,
        Http404: missing,
        BodyUnreadable: unreadable,
        RequestDataTooBig: too_large,
        OperationalError: database_away,
        InterfaceError: database_away,
    }
    for exception, answer in answers.items():
        api.add_exception_handler(exception, answer)


def _answer(
    api: NinjaAPI, request: HttpRequest, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None
) -> HttpResponse:
    response = api.create_response(request, body, status=status)
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def _data(exc: ActionRefused) -> dict[str, Any]:
    match exc:
        case RateLimited():
            return {"retry_after": exc.retry_after}
        case AnotherJobRunning():
            return {"job_id": exc.job.pk}
        case InvalidDefinition():
            return {"errors": [{"field": field, "message": message} for field, message in exc.errors]}
        case DoesNotFitNow():
            return {
                "required_bytes": exc.required_bytes,
                "available_bytes": exc.available_bytes,
                "freeable_bytes": exc.freeable_bytes,
                "ways_out": [_way_out(way) for way in exc.ways_out],
            }
        case NeedsConfirmation(decision=decision):
            return {
                "job_id": decision.job.pk if decision.job else None,
                "percent": min(99, int(decision.job.percent)) if decision.job else None,
                "plan": decision.plan.as_dict() if decision.plan else None,
            }
        case _:
            return {}


def _way_out(way: WayOut) -> dict[str, Any]:
    return {"kind": way.kind.value, "model_ids": list(way.model_ids), "bytes": way.bytes, "context": way.context}


def _field(location: tuple[str | int, ...]) -> str:
    """`("body", "wanted", "model_id")` reads `model_id`: the name of the function's parameter helps nobody."""
    inner = location[2:] if location[0] == "body" and len(location) > 2 else location[1:]
    return ".".join(str(part) for part in inner) or str(location[0])
