"""Lists and forms of the admin. What changes something goes through the catalogue or writes its audit entry beside the row."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from typing_extensions import override
from unfold.admin import ModelAdmin

from models_admin import admin_audit, admin_people, admin_policy, admin_runtime  # noqa: F401 - they register their pages
from models_admin.actor import Actor
from models_admin.admin_readonly import ReadOnlyAdmin
from models_admin.definitions import delete_definition, save_definition
from models_admin.exceptions import ActionRefused
from models_admin.forms import ModelDefinitionForm
from models_admin.job_view import VIA_WORDS, job_view
from models_admin.models import ModelDefinition, Runtime, SwitchJob
from models_admin.need_view import need_view
from models_admin.runtime_access import takes_devices
from models_admin.snapshots import job_snapshot
from models_admin.templatetags.gantry_format import ago, gigabytes_or_dash, seconds


@admin.register(ModelDefinition)
class ModelDefinitionAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """A model's definition. The list of models is the Models tab; this one is for deleting several at once."""

    form = ModelDefinitionForm
    list_display = ("name", "model_id", "size", "quantization", "is_available", "source")
    list_filter = ("is_available", "source", "runtime")
    search_fields = ("name", "model_id", "description")
    list_select_related = ("runtime",)
    show_full_result_count = False
    warn_unsaved_form = True
    actions = ["delete_selected"]
    readonly_fields = ("is_available", "source", "need", "last_failure", "last_used_at", "created_at", "updated_at")
    fieldsets = (
        (None, {"fields": ("model_id", "name", "description", "tags", "is_pinned")}),
        ("File", {"fields": ("runtime", "path", "is_available")}),
        ("How it is loaded", {"fields": ("parameters", "extra_args", "devices")}),
        ("What a load takes", {"fields": ("need",)}),
        ("In chat", {"fields": ("sampling", "chat_template")}),
        ("Facts", {"fields": ("size_bytes", "quantization", "parameter_label", "architecture", "context_length")}),
        ("History", {"fields": ("source", "last_used_at", "last_failure", "created_at", "updated_at")}),
    )

    class Media:
        css = {"all": ("css/variables.css", "css/need.css")}

    @override
    def get_fieldsets(self, request: HttpRequest, obj: ModelDefinition | None = None) -> Any:
        """What a load takes is asked of a model that is there."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None:
            return [one for one in fieldsets if one[1]["fields"] != ("need",)]
        # Where there is nothing to choose from it is not asked; what is there can be taken away.
        if obj.devices or (takes_devices(obj.runtime) and obj.runtime.pool.devices):
            return fieldsets
        hidden = {"fields": ("parameters", "extra_args")}
        return [(title, hidden if "devices" in one["fields"] else one) for title, one in fieldsets]

    @admin.display(ordering="size_bytes")
    def size(self, model: ModelDefinition) -> str:
        """Size in GB."""
        return gigabytes_or_dash(model.size_bytes)

    @admin.display(description="memory and time")
    def need(self, model: ModelDefinition) -> str:
        """What it was estimated to take beside what it was measured to take."""
        return render_to_string("models_admin/_need.html", {"view": need_view(model)})

    @admin.display(description="last failure")
    def last_failure(self, model: ModelDefinition) -> str:
        """Why its last load failed."""
        return f"{model.last_error_text} ({ago(model.last_failed_at)})" if model.last_error_code else "–"

    @override
    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """The only runtime there is, when there is only one."""
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        runtimes = list(Runtime.objects.filter(is_enabled=True).values_list("pk", flat=True)[:2])
        return {"runtime": runtimes[0], **initial} if len(runtimes) == 1 else initial

    @override
    def save_model(self, request: HttpRequest, obj: ModelDefinition, form: Any, change: bool) -> None:
        save_definition(obj, changed=list(form.changed_data), actor=Actor.from_request(request, via="page"))

    @override
    def delete_model(self, request: HttpRequest, obj: ModelDefinition) -> None:
        delete_definition(obj, actor=Actor.from_request(request, via="page"))

    @override
    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            response: HttpResponse = super().delete_view(request, object_id, extra_context)
        except ActionRefused as exc:
            messages.error(request, f"{exc} {exc.hint}".strip())
            return redirect("admin:models_admin_modeldefinition_change", object_id)
        return response

    @admin.action(permissions=["delete"], description="Delete selected models")
    def delete_selected(
        self, request: HttpRequest, queryset: models.QuerySet[ModelDefinition]
    ) -> TemplateResponse | None:
        """Django's own, but for the end: it would say that all were deleted, also of those that stayed."""
        if "post" not in request.POST:
            return delete_selected(self, request, queryset)
        self.delete_queryset(request, queryset)
        return None

    @override
    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[ModelDefinition]) -> None:
        """One by one: those that are in use stay, and are named."""
        for model in queryset:
            try:
                self.delete_model(request, model)
            except ActionRefused as exc:
                messages.error(request, f"{exc} {exc.hint}".strip())
            else:
                messages.success(request, f"{model.name} was deleted.")

    @override
    def response_post_save_add(self, request: HttpRequest, obj: ModelDefinition) -> HttpResponse:
        return redirect("admin:models_tab")

    @override
    def response_post_save_change(self, request: HttpRequest, obj: ModelDefinition) -> HttpResponse:
        return redirect("admin:models_tab")


@admin.register(SwitchJob)
class SwitchJobAdmin(ReadOnlyAdmin):
    """All switches, unloads and restarts; a row leads to its own page."""

    list_display = ("number", "what", "result", "asked_by", "through", "asked", "took")
    list_display_links = None
    list_filter = ("state", "kind", "via")
    search_fields = ("target_name", "requested_by_name")
    list_select_related = ("target",)

    @override
    def get_queryset(self, request: HttpRequest) -> models.QuerySet[SwitchJob]:
        # Logs and plans are long and not shown here.
        jobs: models.QuerySet[SwitchJob] = super().get_queryset(request).defer("log_tail", "plan")
        return jobs

    @admin.display(description="#", ordering="id")
    def number(self, job: SwitchJob) -> SafeString:
        """Its number, leading to its page."""
        return format_html('<a href="{}">{}</a>', job.get_absolute_url(), job.pk)

    @admin.display(description="What")
    def what(self, job: SwitchJob) -> SafeString:
        """What it does, leading to its page."""
        return format_html(
            '<a class="font-semibold" href="{}">{}</a>', job.get_absolute_url(), job_view(job_snapshot(job)).title
        )

    @admin.display(description="Result", ordering="state")
    def result(self, job: SwitchJob) -> str:
        """How it ended, in a sign and words."""
        return render_to_string("models_admin/_job_result.html", {"view": job_view(job_snapshot(job))})

    @admin.display(description="Asked by", ordering="requested_by_name")
    def asked_by(self, job: SwitchJob) -> str:
        """Who asked."""
        return job.requested_by_name

    @admin.display(description="Through", ordering="via")
    def through(self, job: SwitchJob) -> str:
        """Through what."""
        return VIA_WORDS.get(job.via, job.via)

    @admin.display(description="When", ordering="created_at")
    def asked(self, job: SwitchJob) -> str:
        """How long ago, the moment on hover."""
        return render_to_string("models_admin/_ago.html", {"at": job.created_at})

    @admin.display(description="Took")
    def took(self, job: SwitchJob) -> str:
        """From the request to the end, beside what was expected."""
        snapshot = job_snapshot(job)
        took = seconds(snapshot["elapsed_seconds"]) if job.is_finished else "–"
        return f"{took} (expected {seconds(snapshot['expected_seconds'])})" if job.expected_seconds else took
