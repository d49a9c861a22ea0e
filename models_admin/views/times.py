"""How well times are foretold: the page that shows expected beside actual."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.decorators import permission_required
from django.http import HttpResponse
from django.views.decorators.http import require_safe

from models_admin.foretelling import Foretold, jobs_foretold, median_error, models_foretold
from models_admin.views.common import HtmxRequest, render_page

MOST_PERCENT = 100.0  # what is off by more stands at the edge of the picture


@dataclass(frozen=True, slots=True)
class Dot:
    """One job in the picture; both places in percent of its size, from the left and from the top."""

    x: float
    y: float
    is_beyond: bool
    job: Foretold


@require_safe
@permission_required("models_admin.view_switchjob", raise_exception=True)
def times(request: HtmxRequest) -> HttpResponse:
    """The error of the foretold times over the last jobs, and by model."""
    jobs = jobs_foretold()
    context = {
        "title": "Expected times",
        "content_title": "Expected times",
        "dots": _dots(jobs),
        "jobs": jobs,
        "median_error": median_error(jobs),
        "models": models_foretold(),
    }
    return render_page(request, "models_admin/times.html", context)


def _dots(jobs: list[Foretold]) -> list[Dot]:
    width = max(1, len(jobs))
    return [
        Dot(
            x=round(100 * (number + 0.5) / width, 2),
            y=round(50 - max(-MOST_PERCENT, min(MOST_PERCENT, job.error_percent)) / 2, 2),
            is_beyond=abs(job.error_percent) > MOST_PERCENT,
            job=job,
        )
        for number, job in enumerate(jobs)
    ]
