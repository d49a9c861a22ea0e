"""Every router with the address that it stands at."""

from __future__ import annotations

from ninja import Router

from gantry.api.v1 import audit, catalog, jobs, keys, models, requests, runtimes, status

ROUTERS: tuple[tuple[str, Router], ...] = (
    ("/api/v1/models", models.router),
    ("/api/v1/catalog", catalog.router),
    ("/api/v1/runtimes", runtimes.router),
    ("/api/v1/jobs", jobs.router),
    ("/api/v1/audit", audit.router),
    ("/api/v1/keys", keys.router),
    ("/api/v1/requests", requests.router),
    ("/api/v1", status.router),
    ("/api", status.first_router),
)
