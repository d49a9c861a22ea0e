"""What the admin pages share: typed request, context, and the one way to show a refusal where the click happened."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.decorators import permission_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django_htmx.http import reswap, retarget
from django_htmx.middleware import HtmxDetails

from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused
from models_admin.models import ModelDefinition

# A bare part of a page says so: the browser swaps only what carries this, and loads the page again for anything else (sign-in, 500).
PARTIAL_HEADER = "Gantry-Partial"

may_see_models = permission_required("models_admin.view_modeldefinition", raise_exception=True)


class HtmxRequest(HttpRequest):
    """A request of somebody signed in, as the middleware leaves it. For type checking."""

    htmx: HtmxDetails
    user: User


def render_page(request: HtmxRequest, template: str, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    """A page inside the admin's frame."""
    return render(request, template, {**admin.site.each_context(request), **context}, status=status)


def render_partial(request: HtmxRequest, template: str, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    """A bare part of a page, for htmx."""
    response = render(request, template, context, status=status)
    response.headers[PARTIAL_HEADER] = "1"
    return response


def actor_of(request: HtmxRequest) -> Actor:
    """Who clicks."""
    return Actor.from_request(request, via="page")


def find_model(pk: int) -> ModelDefinition:
    """The model with its runtime and pool, or 404."""
    model = ModelDefinition.objects.with_runtime().filter(pk=pk).first()
    if model is None:
        raise Http404("This model is not defined any more.")
    return model


def refused(request: HtmxRequest, exc: ActionRefused, *, slot: str, back: str = "admin:models_tab") -> HttpResponse:
    """The refusal's words: in the element `slot` for htmx, else as a message on the page `back`."""
    if not request.htmx:
        messages.error(request, f"{exc} {exc.hint}".strip())
        return redirect(back)
    response = render_partial(request, "models_admin/_refusal.html", {"refusal": exc}, status=exc.status)
    return with_headers(retarget(reswap(response, "innerHTML"), f"#{slot}"), exc)


def with_headers(response: HttpResponse, exc: ActionRefused) -> HttpResponse:
    """The answer with what a refusal says beside the status, such as when to try again."""
    for name, value in exc.headers.items():
        response.headers[name] = value
    return response
