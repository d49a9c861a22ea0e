"""`POST /api/recover`: have every worker compare its records with reality now."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from models_admin import recovery
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused


@require_POST
def recover(request: HttpRequest) -> JsonResponse:
    """Ask, and answer at once; what was mended shows on the pages and in `manage.py recover --wait`.

    202 {"hosts": [name, …], "sent": true}
    401, 403, 503 {"error": code, "detail": sentence, "hint": what to do}
    """
    if not request.user.is_authenticated:
        return _error(401, "unauthenticated", "Nobody is signed in.", "Sign in first.")
    try:
        hosts = recovery.request_recovery(actor=Actor.from_request(request, via="rest"))
    except ActionRefused as exc:
        return _error(exc.status, exc.code, str(exc), exc.hint)
    return JsonResponse({"hosts": hosts, "sent": True}, status=202)


def _error(status: int, code: str, sentence: str, hint: str) -> JsonResponse:
    return JsonResponse({"error": code, "detail": sentence, "hint": hint}, status=status)
