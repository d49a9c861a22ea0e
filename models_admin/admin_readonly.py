"""Lists of the admin that nobody changes by hand."""

from __future__ import annotations

from django.db import models
from django.http import HttpRequest
from typing_extensions import override
from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePaginator


class ReadOnlyAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """A list that nobody changes by hand."""

    show_full_result_count = False
    paginator = InfinitePaginator  # no counting of thousands of rows
    list_per_page = 50

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @override
    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    @override
    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False
