"""A switch's own page, and its Cancel."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe

from models_admin import actions, rendering
from models_admin.audience import Audience
from models_admin.exceptions import ActionRefused
from models_admin.models import SwitchJob
from models_admin.snapshots import job_snapshot
from models_admin.views.common import HtmxRequest, actor_of, refused, render_page, render_partial


@require_safe
def switch_job(request: HtmxRequest, pk: int) -> HttpResponse:
    """The story of one switch, unload or restart, from the click to what came after."""
    job = _find(request, pk)
    story = rendering.job_story(job, with_audit=request.user.has_perm("models_admin.view_auditentry"))
    title = story["view"].title
    audience = Audience.of(actor_of(request), story["view"].job)
    return render_page(
        request, "models_admin/job.html", {**story, "title": title, "content_title": title, "audience": audience}
    )


@require_POST
def cancel(request: HtmxRequest, pk: int) -> HttpResponse:
    """Ask a job to end."""
    job, actor = _find(request, pk), actor_of(request)
    try:
        actions.cancel_job(job, actor=actor)
    except ActionRefused as exc:
        return refused(request, exc, slot="panel-note", back=job.get_absolute_url())
    if not request.htmx:
        return redirect(job)
    job.refresh_from_db()
    snapshot = job_snapshot(job)
    context = {"audience": Audience.of(actor, snapshot), **rendering.panel_context(snapshot, job.target)}
    return render_partial(request, "models_admin/_panel.html", context)


def _find(request: HtmxRequest, pk: int) -> SwitchJob:
    if not (
        request.user.has_perm("models_admin.view_switchjob")
        or request.user.has_perm("models_admin.view_modeldefinition")
    ):
        raise PermissionDenied
    job = rendering.find_job(pk)
    if job is None:
        raise Http404("There is no switch with this number.")
    return job
