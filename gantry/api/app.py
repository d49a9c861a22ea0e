"""The API as one: every router, one document at /api/v1/openapi.json, one page of documentation."""

from __future__ import annotations

from django.conf import settings
from ninja import NinjaAPI, Swagger

from gantry.api.auth import KeyAuth, SessionAuth
from gantry.api.errors import answer_refusals
from gantry.api.reading import StrictParser
from gantry.api.seeds import admin_models, llm, models_status, serving, switch_stream
from gantry.api.v1.routers import ROUTERS

api = NinjaAPI(
    title="Gantry",
    version=settings.VERSION,
    description=(
        "Switch which model a shared server holds, and see what it does. Sizes are bytes, times are seconds, moments are ISO 8601. "
        "Every refusal has the same shape: `detail` for people, `code` for programs, `hint` what to do, `data` what belongs to the code."
    ),
    urls_namespace="api",
    openapi_url="/api/v1/openapi.json",
    docs_url="/api/v1/docs",
    docs=Swagger(settings={"persistAuthorization": False}),
    auth=[KeyAuth(), SessionAuth()],
    parser=StrictParser(),
)
answer_refusals(api)
for _prefix, _router in ROUTERS:
    api.add_router(_prefix, _router)
api.add_router("", llm.router)
api.add_router("", models_status.router)
api.add_router("", switch_stream.router)
api.add_router("", serving.router)
api.add_router("", admin_models.router)
