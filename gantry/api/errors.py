"""The one shape of every refusal, and the one place where what an action raises becomes an HTTP answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError, HttpError, ValidationError
from pydantic import Field

from models_admin.exceptions import (
    ActionRefused,
    AnotherJobRunning,
    DoesNotFitNow,
    InvalidDefinition,
    KeyRefused,
    RateLimited,
)

_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
_UNAUTHENTICATED = KeyRefused(
    "Nobody is signed in, and no key was sent.",
    "Send “Authorization: Bearer gty_…” with a key from the page API keys, or sign in.",
)


class ErrorBody(Schema):
    """Why something was refused."""

    detail: str = Field(description="One or two sentences for people: what happened.")
    code: str = Field(description="For programs; does not change with the wording.", examples=["model_unknown"])
    hint: str = Field("", description="What to do about it; may be empty.")
    data: dict[str, Any] = Field(
        default_factory=dict,
        description="What belongs to the code: `errors` [{field, message}], `retry_after` (seconds), `job_id`, `percent`, `plan`, "
        "`required_bytes`, `available_bytes`, `freeable_bytes`.",
    )


# For `response=` of an operation: what any of them may answer beside its own.
ERRORS: dict[Any, Any] = {frozenset({400, 401, 403, 404, 409, 413, 422, 429, 503}): ErrorBody}


def error_body(exc: ActionRefused) -> dict[str, Any]:
    """An ErrorBody as JSON makes it, also for streams and sockets."""
    return {"detail": str(exc), "code": exc.code, "hint": exc.hint, "data": _data(exc)}


def answer_refusals(api: NinjaAPI) -> None:
    """Have everything that an operation can raise answered in the one shape."""

    def refused(request: HttpRequest, exc: ActionRefused) -> HttpResponse:
        return _answer(api, request, exc.status, error_body(exc), exc.headers)

    def unauthenticated(request: HttpRequest, exc: AuthenticationError) -> HttpResponse:
        return refused(request, _UNAUTHENTICATED)

    def invalid(request: HttpRequest, exc: ValidationError) -> HttpResponse:
        errors = [{"field": _field(error["loc"]), "message": error["msg"]} for error in exc.errors]
        detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors[:3])
        return _answer(api, request, 422, _body(detail, "invalid", errors=errors))

    def http_error(request: HttpRequest, exc: HttpError) -> HttpResponse:
        return _answer(api, request, exc.status_code, _body(str(exc), _CODES.get(exc.status_code, "refused")))

    def missing(request: HttpRequest, exc: Http404) -> HttpResponse:
        return _answer(api, request, 404, _body(str(exc) or "There is no such thing.", "not_found"))

    def too_large(request: HttpRequest, exc: RequestDataTooBig) -> HttpResponse:
        return _answer(api, request, 413, _body("The body of the request is too large.", "body_too_large"))

    answers: dict[type[Exception], Callable[..., HttpResponse]] = {
        ActionRefused: refused,
        AuthenticationError: unauthenticated,
        ValidationError: invalid,
        HttpError: http_error,
        Http404: missing,
        RequestDataTooBig: too_large,
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


def _body(detail: str, code: str, **data: Any) -> dict[str, Any]:
    return {"detail": detail, "code": code, "hint": "The documentation is at /api/v1/docs.", "data": data}


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
            }
        case _:
            return {}


def _field(location: tuple[str | int, ...]) -> str:
    """`("body", "wanted", "model_id")` reads `model_id`: the name of the function's parameter helps nobody."""
    inner = location[2:] if location[0] == "body" and len(location) > 2 else location[1:]
    return ".".join(str(part) for part in inner) or str(location[0])
