"""A host with the real llama-server, and what people can do and see there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.utils import timezone

from gantry.hardware.fixed import FixedMemory
from gantry.planning.states import ErrorCode, InstanceState, JobState
from gantry.runtimes.base import Runtime as Adapter
from models_admin import actions, catalog, memory, running, specs
from models_admin.actor import Actor
from models_admin.models import (
    MemoryPool,
    ModelDefinition,
    ModelInstance,
    Runtime,
    SwitchEvent,
    SwitchJob,
    SwitchPolicy,
)
from models_admin.runtime_access import runtime_for
from tests.functional.stack import wait_until
from tests.integration.llama_server.helpers import our_processes
from tests.integration.real_switches.held import HeldLoad, release_all

MIB = 1024**2
WAIT_SECONDS = 30.0
PARAMETERS = {"ctx_size": 2048, "threads": 1, "parallel": 1, "batch_size": 32}


@dataclass
class Host:
    """One runtime in one pool, the folder of its models, and the one who asks for things."""

    runtime: Runtime
    pool: MemoryPool
    folder: Path
    state_dir: Path
    user: User
    use_memory: Callable[[FixedMemory], None]

    @property
    def actor(self) -> Actor:
        """Whoever asks."""
        return Actor(self.user, "page")

    @property
    def adapter(self) -> Adapter:
        """What drives llama-server now."""
        return runtime_for(self.runtime)

    # Models

    def add(self, model_id: str, **fields: Any) -> ModelDefinition:
        """A definition for MODEL_ID.gguf, looked at as a scan does."""
        values = {"name": model_id.title(), "path": f"{model_id}.gguf", "parameters": PARAMETERS}
        model = ModelDefinition.objects.create(model_id=model_id, runtime=self.runtime, **{**values, **fields})
        catalog.refresh_availability([model])
        model.refresh_from_db()
        return model

    def give_memory(self, total_bytes: int) -> None:
        """So much is there from now on, for all models together."""
        self.use_memory(FixedMemory(total_bytes))
        memory.refresh_pool(self.pool)

    def leave_room_for_one_of(self, *models: ModelDefinition) -> None:
        """Each of the models fits, and no second one beside it."""
        needs = [specs.spec_for(model, self.pool.host).need_bytes for model in models]
        self.give_memory(max(needs) + min(needs) // 4)  # what is loaded grows a little while it answers

    def held(self, model: ModelDefinition) -> HeldLoad:
        """The load of this model that is under way and stands still."""
        return HeldLoad(self.state_dir, self.folder / model.path)

    # Jobs

    def ask(self, model: ModelDefinition, **how: Any) -> SwitchJob:
        """Ask for a switch; its job waits."""
        return job_of(actions.request_switch(model, actor=self.actor, **how))

    def switch(self, model: ModelDefinition, **how: Any) -> SwitchJob:
        """Ask for a switch and carry it out."""
        return run(self.ask(model, **how))

    def cancel(self, job: SwitchJob) -> None:
        """Ask for its end."""
        actions.cancel_job(job, actor=self.actor)

    @contextmanager
    def at_work(self, job: SwitchJob) -> Iterator[None]:
        """The job is carried out beside what the test does; afterwards it has ended and is read again."""
        thread = threading.Thread(target=_work, args=(job,))
        thread.start()
        try:
            yield
        except BaseException:
            SwitchJob.objects.filter(pk=job.pk).update(cancel_requested_at=timezone.now())
            release_all(self.state_dir)
            raise
        finally:
            thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
        job.refresh_from_db()

    # What is to be seen

    def pid(self, model: ModelDefinition) -> int:
        """Of its process, by its record."""
        pid = ModelInstance.objects.get(model=model).pid
        assert pid is not None
        return pid

    def say(self, model: ModelDefinition, question: str = "Say hello", **sampling: Any) -> str:
        """A real answer of a loaded model."""
        row = ModelInstance.objects.get(model=model, state=InstanceState.LOADED)
        answer = httpx.post(
            f"{row.base_url}/v1/chat/completions",
            json={"messages": [{"role": "user", "content": question}], "max_tokens": 8, **sampling},
            headers={"Authorization": f"Bearer {row.api_key}"},
            timeout=WAIT_SECONDS,
            trust_env=False,
        )
        assert answer.status_code == httpx.codes.OK, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def assert_serves(self, model: ModelDefinition | None, *others: ModelDefinition) -> None:
        """This model is the active one and answers; these are loaded beside it and answer; no other process is there."""
        wanted = [one for one in (model, *others) if one is not None]
        states = dict(ModelInstance.objects.values_list("model__model_id", "state"))
        assert states == {one.model_id: InstanceState.LOADED for one in wanted}
        active = ModelInstance.objects.filter(is_active=True).values_list("model__model_id", flat=True)
        assert list(active) == ([model.model_id] if model else [])
        assert sorted(one.model_id for one in self.adapter.running() if one.is_ready) == sorted(states)
        for one in wanted:
            assert psutil.pid_exists(self.pid(one))
            assert self.say(one).strip()
        assert len(our_processes(self.state_dir)) == 2 * len(wanted)  # a keeper and a server each


def job_of(decision: actions.SwitchDecision) -> SwitchJob:
    """The new job."""
    assert decision.status == "accepted"
    assert decision.job is not None
    return decision.job


def run(job: SwitchJob) -> SwitchJob:
    """Carry a job out, in this thread."""
    running.run_job(job.pk)
    job.refresh_from_db()
    return job


def _work(job: SwitchJob) -> None:
    try:
        running.run_job(job.pk)
    finally:
        connection.close()


def wait_for(job: SwitchJob, condition: Callable[[SwitchJob], bool]) -> None:
    """Until the job's row, which is what every page shows, fulfils a condition."""

    def has_come() -> bool:
        job.refresh_from_db()
        return condition(job)

    wait_until(has_come, WAIT_SECONDS, lambda: f"{job} stands at {job.state}, {job.percent} %, {job.stage_text}")


@contextmanager
def when_told(job: SwitchJob, kind: str, act: Callable[[], None], *, words: str = "") -> Iterator[None]:
    """Meanwhile, the moment everybody is told of such a step of the job, in these words, `act` is called, once, by the job's thread."""
    is_done = threading.Event()

    def look(instance: SwitchEvent, **_: Any) -> None:
        is_meant = instance.job_id == job.pk and instance.step_kind == kind and words in instance.text
        if is_meant and not is_done.is_set():
            is_done.set()
            transaction.on_commit(act)

    post_save.connect(look, sender=SwitchEvent, weak=False)
    try:
        yield
    finally:
        post_save.disconnect(look, sender=SwitchEvent)
    assert is_done.is_set(), f"nothing was told of a {kind} step: {words}"


def set_policy(**fields: Any) -> None:
    """Change the switch policy."""
    policy = SwitchPolicy.current()
    for name, value in fields.items():
        setattr(policy, name, value)
    policy.save()


def assert_failed_and_put_back(job: SwitchJob, code: ErrorCode, former: ModelDefinition) -> None:
    """It failed for this reason, and says that the former model was put back."""
    assert (job.state, job.error_code) == (JobState.FAILED, code), (job.error_text, job.log_tail)
    assert (job.rolled_back, job.aftermath) == (True, f"{former.name} was put back.")
    assert job.error_text
    assert job.downtime_seconds
    assert job.unloaded == []
