"""What can be asked of a server on the Models tab."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from models_admin import actions
from models_admin.exceptions import ActionRefused
from models_admin.models import Runtime
from models_admin.views.common import HtmxRequest, actor_of, may_see_models, refused, render_partial


@require_POST
@may_see_models
def refresh(request: HtmxRequest, pk: int) -> HttpResponse:
    """Have a server asked for its models; what it says comes by the live update."""
    runtime = get_object_or_404(Runtime.objects.select_related("pool"), pk=pk)
    try:
        actions.request_refresh(runtime, actor=actor_of(request))
    except ActionRefused as exc:
        return refused(request, exc, slot=f"runtime-note-{pk}")
    if not request.htmx:
        messages.info(request, f"Asking {runtime.name} for its models…")
        return redirect("admin:models_tab")
    return render_partial(request, "models_admin/_asking.html", {"runtime": runtime})
