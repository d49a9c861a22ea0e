"""/ws/llm: status, switch and restart of the one model that serves, for a control panel. `ws_messages` describes each message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from channels.db import database_sync_to_async
from typing_extensions import override

from gantry.api.ws_base import ProgramConsumer
from gantry.api.ws_board import Change, Frame, JobMoved, MemoryMoved, View
from gantry.api.ws_messages import (
    LLM_REQUESTS,
    GetLlmStatus,
    LlmDone,
    LlmModelSwitched,
    LlmProgress,
    LlmRequest,
    LlmServerRestarted,
    LlmStatus,
    LlmSwitching,
    RestartLlmServer,
    SwitchLlmModel,
)
from gantry.live import JobSnapshot
from gantry.planning.states import SERVING_KINDS, JobKind, JobState
from models_admin import actions
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused, NotLoaded, RateLimited
from models_admin.job_requests import SwitchDecision
from models_admin.job_view import job_view
from models_admin.models import ModelInstance
from models_admin.templatetags.gantry_format import seconds

_DONE: dict[str, type[LlmDone]] = {JobKind.SWITCH: LlmModelSwitched, JobKind.RESTART: LlmServerRestarted}
_DONE_WORDS = {JobKind.SWITCH: "Switched to {}", JobKind.RESTART: "Restarted {}"}


def translate(change: Change, view: View) -> Iterator[Frame]:
    """What everybody is told."""
    match change:
        case MemoryMoved():
            return
        case JobMoved(job, is_new):
            yield from _job_frames(job, is_new=is_new)
            if not (is_new or job["is_finished"]):
                return
    yield status_frame(view)


def status_frame(view: View) -> Frame:
    """The present status."""
    active, job = view.active, view.job
    message = LlmStatus(
        running=active is not None,
        current_model=active.id if active else None,
        current_model_name=active.name if active else None,
        switching_to=job["target_id"] if job and job["kind"] in SERVING_KINDS else None,
        job_id=job["id"] if job else None,
        models=list(view.models.values()),
    )
    return Frame("status", message.model_dump_json())


class LlmConsumer(ProgramConsumer):
    """One connection to /ws/llm."""

    requests = LLM_REQUESTS
    translate = staticmethod(translate)

    @override
    async def greeting(self, view: View) -> list[str]:
        """The status, and how far a job under way is."""
        frames = [status_frame(view), *(_job_frames(view.job, is_new=True) if view.job else ())]
        return [frame.text for frame in frames]

    @override
    async def answer(self, request: LlmRequest, actor: Actor, view: View) -> None:
        """Tell the status, or ask for a switch or a restart; how that goes is told to everybody."""
        match request:
            case GetLlmStatus():
                self.outbox.put(status_frame(view).text, key="status")
            case SwitchLlmModel():
                reply = await _ask(lambda actor: _switch(request, actor), actor, JobKind.SWITCH, request.model_id)
                self._reply(reply)
            case RestartLlmServer():
                self._reply(await _ask(_restart, actor, JobKind.RESTART, ""))

    def _reply(self, text: str | None) -> None:
        if text is not None:
            self.outbox.put(text)


async def _ask(act: Callable[[Actor], str | None], actor: Actor, kind: JobKind, model_id: str) -> str | None:
    """What the one who asked is told beside what everybody is told."""
    try:
        reply: str | None = await database_sync_to_async(act)(actor)
    except ActionRefused as exc:
        return _refused(exc, kind, model_id)
    return reply


def _switch(request: SwitchLlmModel, actor: Actor) -> str | None:
    model = actions.find_model(request.model_id)
    decision = actions.request_switch(model, actor=actor, confirm=request.confirm)
    return _decided(decision, JobKind.SWITCH, model.model_id, model.name)


def _restart(actor: Actor) -> str | None:
    active = ModelInstance.objects.filter(is_active=True).select_related("model").first()
    if active is None:
        raise NotLoaded("No model is loaded, so there is nothing to restart.", "Switch to a model first.")
    model = actions.find_model(active.model.model_id)
    return _decided(actions.request_restart(model, actor=actor), JobKind.RESTART, model.model_id, model.name)


def _decided(decision: SwitchDecision, kind: JobKind, model_id: str, name: str) -> str | None:
    match decision.status:
        case "already_loaded":
            done = _DONE[kind](
                success=True, message=f"{name} serves already.", model_id=model_id, job_id=None, code="", hint=""
            )
            return done.model_dump_json()
        case "needs_confirmation":
            return _needs_confirmation(decision, kind, model_id)
        case "joined" if decision.job is not None and kind == JobKind.SWITCH:
            return _switching(f"Switching to {name} is under way already.", model_id, name, decision.job.pk)
        case _:
            return None  # everybody is told, the one who asked too


def _needs_confirmation(decision: SwitchDecision, kind: JobKind, model_id: str) -> str:
    if decision.job is not None:
        message = f"A switch to {decision.job.target_name} is more than half done (asked by {decision.job.requested_by_name})."
    else:
        names = " and ".join(model.name for model in decision.plan.evicted) if decision.plan else ""
        message = f"This would unload {names}." if names else "This would unload a model."
    hint = 'Send it again with "confirm": true to do it all the same.'
    done = _DONE[kind](
        success=False, message=message, model_id=model_id, job_id=None, code="needs_confirmation", hint=hint
    )
    return done.model_dump_json()


def _refused(exc: ActionRefused, kind: JobKind, model_id: str) -> str:
    wait = exc.retry_after if isinstance(exc, RateLimited) else None
    done = _DONE[kind](
        success=False,
        message=str(exc),
        model_id=model_id,
        job_id=None,
        code=exc.code,
        hint=exc.hint,
        retry_after=wait,
    )
    return done.model_dump_json()


def _job_frames(job: JobSnapshot, *, is_new: bool) -> Iterable[Frame]:
    if job["is_finished"]:
        if job["kind"] in _DONE:
            yield Frame(("done", job["id"]), _ended(job))
        return
    if is_new and job["kind"] == JobKind.SWITCH:
        text = f"Switching to {job['target_name']}…"
        yield Frame(("switching", job["id"]), _switching(text, job["target_id"], job["target_name"], job["id"]))
    yield Frame(("progress", job["id"]), _progress(job))


def _switching(message: str, model_id: str, name: str, job_id: int) -> str:
    return LlmSwitching(message=message, model_id=model_id, model_name=name, job_id=job_id).model_dump_json()


def _progress(job: JobSnapshot) -> str:
    same: dict[str, Any] = {name: job[name] for name in LlmProgress.model_fields if name in job and name != "type"}  # type: ignore[literal-required]
    message = LlmProgress(
        **same,
        stage=job["state"],
        message=job["stage_text"],
        job_id=job["id"],
        model_id=job["target_id"],
        model_name=job["target_name"],
    )
    return message.model_dump_json()


def _ended(job: JobSnapshot) -> str:
    has_succeeded = job["state"] == JobState.SUCCEEDED
    done = _DONE[job["kind"]](
        success=has_succeeded,
        message=_end_text(job),
        model_id=job["target_id"],
        job_id=job["id"],
        code="" if has_succeeded else job["error_code"] or job["state"],
        hint="" if has_succeeded else job["error_hint"],
    )
    return done.model_dump_json()


def _end_text(job: JobSnapshot) -> str:
    if job["state"] == JobState.SUCCEEDED:
        done = _DONE_WORDS[JobKind(job["kind"])].format(job["target_name"])
        return f"{done} in {seconds(job['elapsed_seconds'])}."
    words = job["error_text"] or job_view(job).outcome
    return f"{words} {job['aftermath']}".strip()
