"""The admin site: unfold's, with the Models tab as its front page."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.apps import AdminConfig
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern
from typing_extensions import override
from unfold.sites import UnfoldAdminSite


class GantryAdminSite(UnfoldAdminSite):  # type: ignore[misc]  # unfold ships no types
    """Adds Gantry's own pages under /admin/, beside the lists and forms that Django makes."""

    @override
    def has_permission(self, request: HttpRequest) -> bool:
        """Whether somebody may come in: also operators, who are not staff in Django's sense."""
        from models_admin.roles import may_enter_admin  # not before the apps are there

        return may_enter_admin(request.user)

    @override
    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The Models tab for those who may see it."""
        if request.user.has_perm("models_admin.view_modeldefinition"):
            return redirect("admin:models_tab")
        response: HttpResponse = super().index(request, extra_context)
        return response

    @override
    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Django's page for one's own password, written down."""
        from django.contrib.auth.models import User

        from models_admin import audit_signals
        from models_admin.actor import Actor

        with transaction.atomic():
            before = User.objects.get(pk=request.user.pk or 0)  # `admin_view` lets nobody else in
            response: HttpResponse = super().password_change(request, extra_context)
            after = User.objects.get(pk=before.pk)
            if after.password != before.password:
                audit_signals.note_password(after, actor=Actor.from_request(request, via="page"))
        return response

    def extra_urls(self) -> list[URLPattern]:
        """Addresses that unfold puts before Django's own."""
        from models_admin.urls import admin_urls

        return admin_urls(self)


class GantryAdminConfig(AdminConfig):
    """`django.contrib.admin` with Gantry's site as the default one."""

    default_site = "models_admin.admin_site.GantryAdminSite"
