"""What an action can refuse. Every edge translates these once: `code`, `status` and the text for people ride on the class.

ActionRefused
├── KeyRefused              401
├── NotAllowed              403
├── ModelUnknown            404
├── NotDownloaded           409
├── FileDamaged             409
├── NotLoaded               409
├── ModelInUse              409
├── AnotherJobRunning       409   carries the job
├── DoesNotFitNow           409   carries required, available and freeable bytes
├── RequestAnswered         409
├── RuntimeUnusable         409
├── RuntimeInUse            409
├── InvalidDefinition       422   carries (field, message) pairs
├── InvalidRequest          422   carries (field, message) pairs
├── RateLimited             429   carries the seconds to wait
└── Unavailable             503   the broker is away
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from gantry.planning.ways_out import WayOut
    from models_admin.models import SwitchJob


class ActionRefused(Exception):
    """An action was not done. `str(exc)` is a sentence for people, `hint` says what to do."""

    code = "refused"
    status = 409

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint

    @property
    def headers(self) -> dict[str, str]:
        """What an HTTP answer says beside the status."""
        return {}


class KeyRefused(ActionRefused):
    """A program's key cannot be used: it is unknown, expired or revoked, or its user is switched off."""

    code = "key_refused"
    status = 401

    @property
    @override
    def headers(self) -> dict[str, str]:
        """How to say who asks."""
        return {"WWW-Authenticate": 'Bearer realm="Gantry"'}


class NotAllowed(ActionRefused):
    """The person may not do this."""

    code = "forbidden"
    status = 403


class ModelUnknown(ActionRefused):
    """No model has this id."""

    code = "model_unknown"
    status = 404


class NotDownloaded(ActionRefused):
    """The model's file is missing."""

    code = "not_downloaded"


class FileDamaged(ActionRefused):
    """The model's file is there and cannot be used; the sentence says why."""

    code = "file_damaged"


class NotLoaded(ActionRefused):
    """The model is not loaded, so it cannot be unloaded or restarted."""

    code = "not_loaded"


class ModelInUse(ActionRefused):
    """The model is loaded, or a job that has not ended is about it, so it cannot be deleted."""

    code = "model_in_use"


class AnotherJobRunning(ActionRefused):
    """A job is at work on the same memory."""

    code = "job_running"

    def __init__(self, sentence: str, hint: str, job: SwitchJob) -> None:
        super().__init__(sentence, hint)
        self.job = job


class DoesNotFitNow(ActionRefused):
    """The model needs more than can be freed. Figures in bytes; `ways_out` is what would make room."""

    code = "insufficient_memory"

    def __init__(
        self,
        sentence: str,
        hint: str,
        *,
        required_bytes: int,
        available_bytes: int,
        freeable_bytes: int,
        ways_out: Sequence[WayOut] = (),
    ) -> None:
        super().__init__(sentence, hint)
        self.ways_out = tuple(ways_out)
        self.required_bytes = required_bytes
        self.available_bytes = available_bytes
        self.freeable_bytes = freeable_bytes


class RequestAnswered(ActionRefused):
    """Somebody asked for a model, and that is not open any more: it was answered or withdrawn, or nobody answered for a day."""

    code = "request_answered"


class RuntimeUnusable(ActionRefused):
    """The runtime is switched off or cannot be used; the sentence says why."""

    code = "runtime_unusable"


class RuntimeInUse(ActionRefused):
    """Models belong to the runtime, so it cannot be deleted."""

    code = "runtime_in_use"


class InvalidDefinition(ActionRefused):
    """A model definition or file has errors; each names its place."""

    code = "invalid"
    status = 422

    def __init__(self, sentence: str, errors: list[tuple[str, str]]) -> None:
        super().__init__(sentence)
        self.errors = errors


class InvalidRequest(InvalidDefinition):
    """What was asked for makes no sense; each error names its place."""


class RateLimited(ActionRefused):
    """Too soon. `retry_after` is whole seconds, at least one, after which the same is tried again with success."""

    code = "rate_limited"
    status = 429

    def __init__(self, sentence: str, hint: str = "", *, retry_after: int) -> None:
        super().__init__(sentence, hint)
        self.retry_after = retry_after

    @property
    @override
    def headers(self) -> dict[str, str]:
        """When to try again."""
        return {"Retry-After": str(self.retry_after)}


class Unavailable(ActionRefused):
    """Something Gantry needs is away; try again."""

    code = "unavailable"
    status = 503
