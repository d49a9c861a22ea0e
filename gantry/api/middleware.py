"""What holds for every address of the API before and after its operations: how large a body may be, and the one shape of refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from gantry.api.errors import plain_body

PREFIXES = ("/api/", "/v1/models")
MOST_DIGITS = 12  # of a Content-Length; Python reads thousands slowly
IMPORT_PATH = "/api/v1/catalog/import"
_Handler = Callable[[HttpRequest], HttpResponseBase]
_SENTENCES = {
    400: "The request cannot be read.",
    403: "This is not allowed.",
    404: "There is no such address.",
    500: "Something went wrong in Gantry. The log of the web server says what.",
}


class ApiMiddleware:
    """Refuses what is too large before it is read, and puts Django's own refusals (404, 405, 500 …) into the API's shape."""

    def __init__(self, get_response: _Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Refuse, or pass on and look at the answer."""
        if not request.path_info.startswith(PREFIXES):
            return self.get_response(request)
        return _refusal(request) or _shaped(request, self.get_response(request))


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Why a request is not let in, if it is not."""
    limit = settings.API_IMPORT_BYTES if request.path_info == IMPORT_PATH else settings.API_BODY_BYTES
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        return _error(400, "Content-Length is no number.")
    if len(length) > MOST_DIGITS or int(length) > limit:
        return _error(413, f"The body of the request is larger than {limit // 1024} KiB.")
    if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
        return _error(411, "The request does not say how long its body is: send Content-Length.")
    if "\0" in request.path_info or "%00" in request.META.get("QUERY_STRING", ""):
        return _error(400, "The address holds the character NUL, which no name has.")
    return None


def _shaped(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    is_page = isinstance(response, HttpResponse) and "json" not in response.headers.get("Content-Type", "")
    if response.status_code < 400 or not is_page:
        return response
    response = cast("HttpResponse", response)
    shaped = _error(response.status_code, _sentence(request, response.status_code))
    response.content = shaped.content
    response.headers["Content-Type"] = shaped.headers["Content-Type"]
    response.headers["Content-Length"] = str(len(shaped.content))  # that of the page was set already
    return response


def _sentence(request: HttpRequest, status: int) -> str:
    if status == 405:
        return f"{request.method} is not allowed here."
    return _SENTENCES.get(status, "This was refused.")


def _error(status: int, sentence: str) -> JsonResponse:
    return JsonResponse(plain_body(status, sentence), status=status)
