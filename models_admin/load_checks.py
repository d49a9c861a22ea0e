"""Refusing what cannot work before anything is planned, written or started. Reads files: not inside a transaction."""

from __future__ import annotations

from gantry.planning.states import JobKind
from models_admin import catalog
from models_admin.exceptions import FileDamaged, NotDownloaded, NotLoaded, RuntimeUnusable
from models_admin.model_files import damage, is_on_this_host, is_there
from models_admin.models import ModelDefinition, ModelInstance

_NEED_IT_LOADED = frozenset({JobKind.UNLOAD, JobKind.RESTART})


def check_possible(model: ModelDefinition, kind: JobKind) -> None:
    """Whether a job of this kind could be done with the model at all.

    Raises:
        NotLoaded, RuntimeUnusable, NotDownloaded, FileDamaged: it cannot, and why.
    """
    if kind in _NEED_IT_LOADED and not ModelInstance.objects.filter(model=model).exists():
        raise NotLoaded(f"{model.name} is not loaded.", "Switch to it to load it.")
    if kind != JobKind.UNLOAD:
        _check_runtime(model)
        _check_file(model)


def _check_runtime(model: ModelDefinition) -> None:
    runtime = model.runtime
    if not runtime.is_enabled:
        raise RuntimeUnusable(f"The runtime {runtime.name} is switched off.", "Switch it on under Runtimes.")
    if runtime.checked_at and not runtime.is_healthy:
        reason = runtime.health_text or "it does not answer"
        raise RuntimeUnusable(f"The runtime {runtime.name} cannot be used: {reason}", "See Runtimes for its state.")


def _check_file(model: ModelDefinition) -> None:
    """A model whose file is missing or damaged is refused here, not after others were unloaded for it."""
    path = catalog.resolve_path(model)
    # Looked at now, for it may have gone since somebody last looked. Another host's file: its worker looks.
    is_gone = is_on_this_host(model) and not is_there(path)
    if is_gone or not model.is_available:
        raise NotDownloaded(
            f"{model.name} is not downloaded.", "Put its file in place or correct its path, then scan again."
        )
    if reason := damage(path):
        raise FileDamaged(f"The file of {model.name} cannot be used: it {reason}.", "Copy or download the file again.")
