"""What the chat's views share: who may come in, and how a form is answered with and without htmx."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Concatenate, ParamSpec
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

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
