"""Addresses of Gantry's own pages under /admin/, in the namespace `admin`."""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.urls import URLPattern, path

from models_admin.views import imports, jobs, logs, models_tab, requests, servers, switching, times


def admin_urls(site: AdminSite) -> list[URLPattern]:
    """All of them; `admin_view` sends those who are not staff to the sign-in page."""
    view = site.admin_view
    return [
        path("models/", view(models_tab.models_tab), name="models_tab"),
        path("models/import/", view(imports.import_page), name="models_import"),
        path("models/import/yaml/", view(imports.import_yaml), name="models_import_yaml"),
        path("models/import/folder/", view(imports.scan_folder), name="models_scan"),
        path("models/export/", view(imports.export_yaml), name="models_export"),
        path("models/<int:pk>/switch/", view(switching.switch), name="model_switch"),
        path("models/<int:pk>/unload/", view(switching.unload), name="model_unload"),
        path("models/<int:pk>/restart/", view(switching.restart), name="model_restart"),
        path("models/<int:pk>/preload/", view(switching.preload), name="model_preload"),
        path("pools/<int:pk>/unload-all/", view(switching.unload_all), name="pool_unload_all"),
        path("runtimes/<int:pk>/refresh/", view(servers.refresh), name="runtime_refresh"),
        path("models/<int:pk>/pin/", view(models_tab.pin), name="model_pin"),
        path("models/<int:pk>/log/", view(logs.log_page), name="model_log"),
        path("requests/<int:pk>/approve/", view(requests.approve), name="request_approve"),
        path("requests/<int:pk>/decline/", view(requests.decline), name="request_decline"),
        path("switches/times/", view(times.times), name="expected_times"),
        path("switches/<int:pk>/", view(jobs.switch_job), name="switch_job"),
        path("switches/<int:pk>/cancel/", view(jobs.cancel), name="switch_job_cancel"),
    ]
