"""The Models tab."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe

from models_admin import actions, rendering
from models_admin.audience import Audience
from models_admin.exceptions import ActionRefused, InvalidDefinition
from models_admin.model_list import COLUMNS, STATE_GROUPS, ListQuery, lines_of, tags_of
from models_admin.overview import Overview, current_job, model_rows, overview
from models_admin.views.common import (
    HtmxRequest,
    actor_of,
    find_model,
    may_see_models,
    refused,
    render_page,
    render_partial,
)


@require_safe
@may_see_models
def models_tab(request: HtmxRequest) -> HttpResponse:
    """Every model and its state, the memory, and the switch that runs."""
    now = overview()
    return render_page(request, "models_admin/models_tab.html", _context(request, now))


@require_POST
@may_see_models
def pin(request: HtmxRequest, pk: int) -> HttpResponse:
    """Pin or unpin a model: `is_pinned` is 1 or 0."""
    model, actor = find_model(pk), actor_of(request)
    try:
        actions.set_pinned(model, _is_pinned(request), actor=actor)
    except ActionRefused as exc:
        return refused(request, exc, slot=f"model-note-{pk}")
    if not request.htmx:
        return redirect("admin:models_tab")
    job = current_job()
    line = lines_of(model_rows(job, model_ids=[model.model_id], with_people=True))[0]
    return render_partial(request, "models_admin/_row.html", {"line": line, "audience": Audience.of(actor, job)})


def _is_pinned(request: HtmxRequest) -> bool:
    """What was asked for. A request that says neither must not take a pin away.

    Raises:
        InvalidDefinition: it says neither.
    """
    wanted = {"1": True, "0": False}.get(request.POST.get("is_pinned", ""))
    if wanted is None:
        sentence = "Say whether to pin or to unpin it."
        raise InvalidDefinition(sentence, [("is_pinned", "must be 1 or 0")])
    return wanted


def _context(request: HtmxRequest, now: Overview) -> dict[str, Any]:
    query = ListQuery.from_parameters(request.GET)
    lines = query.apply(lines_of(now.rows))
    job = now.job or now.last_job
    audience = Audience.of(actor_of(request), job)
    return {
        "title": "Models",
        "content_title": "Models",
        "query": query,
        "columns": COLUMNS,
        "state_groups": [(key, label) for key, (label, _) in STATE_GROUPS.items()],
        "tags": tags_of(now.rows),
        "lines": lines,
        "shown_count": sum(not line.is_hidden for line in lines),
        "models_dir": settings.MODELS_DIR,
        "audience": audience,
        **rendering.requests_context(audience),
        **rendering.memory_context(now),
        **rendering.panel_context(job, rendering.model_of(job, now.rows)),
    }
