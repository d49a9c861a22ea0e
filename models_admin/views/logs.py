"""The log of a model that is loaded."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.views.decorators.http import require_safe
from django_htmx.http import HTMX_STOP_POLLING

from gantry.runtimes.exceptions import RuntimeFault
from models_admin.models import ModelDefinition, ModelInstance, SwitchJob
from models_admin.runtime_access import runtime_for
from models_admin.views.common import HtmxRequest, find_model, may_see_models, render_page, render_partial

LINES_SHOWN = 200


@require_safe
@may_see_models
def log_page(request: HtmxRequest, pk: int) -> HttpResponse:
    """Last lines of the model's log; asked again each second while the page is looked at."""
    model = find_model(pk)
    context = {"model": model, **_log(model)}
    if request.htmx:
        # There is nothing more to come from a model that is not held any more.
        status = 200 if context["instance"] else HTMX_STOP_POLLING
        return render_partial(request, "models_admin/_log.html", context, status=status)
    title = f"Log of {model.name}"
    return render_page(request, "models_admin/log.html", {"title": title, "content_title": title, **context})


def _log(model: ModelDefinition) -> dict[str, Any]:
    instance = ModelInstance.objects.filter(model=model).select_related("runtime").first()
    if instance is None:
        last = SwitchJob.objects.filter(target=model).exclude(log_tail="").first()
        return {"instance": None, "last_failure": last}
    try:
        lines = runtime_for(instance.runtime).log_tail(str(instance.instance_id), lines=LINES_SHOWN)
    except RuntimeFault as exc:
        return {"instance": instance, "fault": exc.detail or "The runtime did not answer."}
    return {"instance": instance, "log": "\n".join(lines)}
