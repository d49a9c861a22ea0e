"""The review page of the audit log: sentences, filters, export, and the state of the chain."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from typing_extensions import override

from models_admin import audit_export, audit_review, audit_view
from models_admin.actor import Actor
from models_admin.admin_readonly import ReadOnlyAdmin
from models_admin.audit_review import AuditFilter
from models_admin.models import AuditEntry, AuditHead, ModelDefinition

MOST_NAMES = 500  # offered for a choice


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who did what. Rows are only ever added, so there are a list, a page for each entry, and an export."""

    @override
    def get_urls(self) -> list[URLPattern]:
        export = path("export/", self.admin_site.admin_view(self.export_view), name="models_admin_auditentry_export")
        return [export, *super().get_urls()]

    @override
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self._check(request)
        wanted = AuditFilter.from_query(request.GET)
        page = audit_review.read_page(wanted, below=_number(request, "below"), above=_number(request, "above"))
        context = {
            "title": "Audit",
            "content_title": "Audit",
            "lines": [audit_view.entry_view(entry) for entry in page.entries],
            "chain": audit_view.chain_view(AuditHead.current()),
            "filter": wanted,
            "query": urlencode(wanted.as_query()),
            "older": page.older,
            "newer": page.newer,
            "formats": [
                (name, label, f"export/?{urlencode({**wanted.as_query(), 'format': name})}") for name, label in _FORMATS
            ],
            **_choices(),
        }
        return render(request, "models_admin/audit.html", {**self.admin_site.each_context(request), **context})

    @override
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        self._check(request)
        entry = AuditEntry.objects.select_related("job").filter(pk=_whole(object_id) or 0).first()
        if entry is None:
            messages.warning(request, "There is no audit entry with this number. It may have been archived.")
            return redirect("admin:models_admin_auditentry_changelist")
        context = {
            "title": f"Audit entry {entry.pk}",
            "content_title": f"Audit entry {entry.pk}",
            "line": audit_view.entry_view(entry),
            "changes": audit_view.changes(entry),
            "stages": audit_view.stage_lines(entry),
            "plan": audit_view.plan_text(entry),
        }
        return render(request, "models_admin/audit_entry.html", {**self.admin_site.each_context(request), **context})

    def export_view(self, request: HttpRequest) -> StreamingHttpResponse:
        """The entries of the present filters as a file. That somebody took it away is written down too."""
        self._check(request)
        wanted, name = AuditFilter.from_query(request.GET), request.GET.get("format", "csv")
        if name not in audit_export.CONTENT_TYPES:
            raise Http404("Entries are exported as csv or jsonl.")
        actor = Actor.from_request(request, via="page")
        return audit_export.answer_with_file(request, wanted, "csv" if name == "csv" else "jsonl", actor=actor)

    def _check(self, request: HttpRequest) -> None:
        """Looking is all that anybody may do here."""
        if request.method not in {"GET", "HEAD"} or not self.has_view_permission(request):
            raise PermissionDenied


_FORMATS = (("csv", "CSV"), ("jsonl", "JSON Lines"))


def _choices() -> dict[str, Any]:
    """What the filters offer. People and outcomes are those of the log, so that people who were deleted are found too."""
    return {
        "people": audit_review.known_values("actor_name", MOST_NAMES),
        "outcomes": [value for value in audit_review.known_values("outcome", MOST_NAMES) if value],
        "events": audit_view.event_choices(),
        "model_names": ModelDefinition.objects.order_by("name").values_list("name", flat=True)[:MOST_NAMES],
    }


def _number(request: HttpRequest, name: str) -> int | None:
    return _whole(request.GET.get(name, ""))


def _whole(text: str) -> int | None:
    """A number that a column holds."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
