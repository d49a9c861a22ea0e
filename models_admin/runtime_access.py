"""From a Runtime row to the adapter that drives it. Only on the host that owns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings

from gantry.runtimes.registry import RuntimeConfig, build_runtime

if TYPE_CHECKING:
    from gantry.runtimes import base
    from models_admin.models import Runtime


def runtime_for(row: Runtime) -> base.Runtime:
    """The adapter of a runtime. The folder in which it keeps its processes carries the row's id, so a renaming loses nothing."""
    return build_runtime(
        RuntimeConfig(
            name=row.name,
            kind=row.kind,
            options=row.options,
            state_dir=settings.RUNTIME_DIR / f"{row.kind}-{row.pk}",
            binary=settings.LLAMA_SERVER,
        )
    )
