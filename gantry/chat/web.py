"""What the chat's views share: who may come in, how a form is answered with and without htmx, and how a refusal is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Concatenate, ParamSpec
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django_htmx.http import HttpResponseClientRedirect, trigger_client_event
from django_htmx.middleware import HtmxDetails

from models_admin.exceptions import ActionRefused

P = ParamSpec("P")


class ChatRequest(HttpRequest):
    """A request that has passed `signed_in`."""

    htmx: HtmxDetails
    user: User


def signed_in(
    view: Callable[Concatenate[ChatRequest, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """Only for people who are signed in; others are shown the sign-in page, as a whole page also when a part was asked for."""

    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        htmx = HtmxDetails(request)
        if request.user.is_authenticated:
            return view(request, *args, **kwargs)  # type: ignore[arg-type]
        if htmx:
            return HttpResponseClientRedirect(f"{resolve_url('sign_in')}?{urlencode({'next': page_path(request)})}")
        return redirect_to_login(request.get_full_path() if request.method == "GET" else "/")

    return guarded


def page_path(request: HttpRequest) -> str:
    """The path of the page on which the person is: where to go back to after a form."""
    named = request.POST.get("next") or request.GET.get("next") or ""
    if _is_path(named):
        return named
    current = HtmxDetails(request).current_url or request.headers.get("Referer", "")
    try:
        path = urlsplit(current).path
    except ValueError:  # a header may hold anything
        return "/"
    return path if _is_path(path) else "/"


def _is_path(text: str) -> bool:
    """Whether it leads to this site whatever the browser makes of it; "//elsewhere" does not."""
    return text.startswith("/") and url_has_allowed_host_and_scheme(text, allowed_hosts=None)


def dialog(request: ChatRequest, name: str, context: Mapping[str, object], status: int = 200) -> HttpResponse:
    """A dialog: its content for htmx, else a page of its own. `name` is the template of the content."""
    shown = {**context, "dialog_template": name, "next": page_path(request)}
    return render(request, name if request.htmx else "chat/dialog_page.html", shown, status=status)


def done(request: ChatRequest) -> HttpResponse:
    """The socket shows what happens next; without it, the page does."""
    if not request.htmx:
        return redirect(page_path(request))
    return trigger_client_event(HttpResponse(status=204), "dialogDone")


def refused(request: ChatRequest, exc: ActionRefused, title: str) -> HttpResponse:
    """Why an action was not done and what to do about it, as a dialog, with the headers that belong to it."""
    context = {"title": title, "sentence": str(exc), "hint": exc.hint}
    response = dialog(request, "chat/_refused_dialog.html", context, status=exc.status)
    for name, value in exc.headers.items():
        response.headers[name] = value
    return response
