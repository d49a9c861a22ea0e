"""Doing the faults: SIGKILL to what a strike names, SIGSTOP to what it only stops."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gantry.runtimes.process import ProcessMark
from models_admin.models import ModelInstance, Runtime, SwitchJob
from tests.chaos.doing import Story, pick
from tests.chaos.reality import ModelProcess, mark_of, model_processes, part_of
from tests.chaos.schedule import Fault, Strike
from tests.chaos.world import World

LOADING_SECONDS = 5.0  # how long one looks for a load to hit
MOMENT_SECONDS = 3.0  # how long a strike waits for its moment; then it comes anyway
LOOK_SECONDS = 0.005


@dataclass
class Struck:
    """What the strikes of a whole run have hit."""

    instances: set[str] = field(default_factory=set)  # whose processes were ended or stopped
    counts: dict[Fault, int] = field(default_factory=dict)
    missed: dict[Fault, int] = field(default_factory=dict)  # there was nothing to hit


def strike(world: World, what: Strike, story: Story, struck: Struck) -> None:
    """Wait for the moment, then strike. What is hit in the middle of a load is looked for by the strike itself."""
    time.sleep(max(0.0, what.at_seconds - story.seconds))
    if what.kind != Fault.LOADING:
        _await_moment(what.moment)
        time.sleep(what.delay_seconds)
    hit = _STRIKING[what.kind](world, what, struck)
    story.struck_at = time.time()
    counts = struck.counts if hit else struck.missed
    counts[what.kind] = counts.get(what.kind, 0) + 1
    story.tell(f"** {what.kind}: {hit or 'there was nothing to hit'} (jobs: {_jobs_now()})")


def _await_moment(state: str) -> None:
    deadline = time.monotonic() + MOMENT_SECONDS
    while state and time.monotonic() < deadline and not SwitchJob.objects.filter(state=state).exists():
        time.sleep(LOOK_SECONDS)


def _jobs_now() -> str:
    jobs = SwitchJob.objects.unfinished().order_by("pk").values_list("pk", "kind", "state", "target_name")
    return ", ".join(f"#{pk} {kind} {target} {state}" for pk, kind, state, target in jobs) or "none"


def _kill_part(name: str) -> Callable[[World, Strike, Struck], str]:
    """A process of `up`."""

    def act(world: World, _what: Strike, _struck: Struck) -> str:
        process = part_of(world.stack, name)
        if process is None:
            return ""
        process.kill()
        return f"killed process {process.pid}"

    return act


def _pause_worker(world: World, what: Strike, _struck: Struck) -> str:
    process = part_of(world.stack, "worker")
    if process is None:
        return ""
    mark = mark_of(process.pid)
    if mark:
        _stop_for(mark, what.hold_seconds)
    return f"stopped process {process.pid} for {what.hold_seconds} s"


def _stop_for(mark: ProcessMark, seconds: float) -> None:
    if mark.send(signal.SIGSTOP):
        time.sleep(seconds)
        mark.send(signal.SIGCONT)


def _kill_model(world: World, what: Strike, struck: Struck) -> str:
    target = pick(_living(world, is_loaded=True), what.choice)
    return _end(target, target.child, struck) if target else ""


def _kill_keeper(world: World, what: Strike, struck: Struck) -> str:
    target = pick([found for found in model_processes(world.runtime_dir) if found.keeper.is_alive], what.choice)
    return _end(target, target.keeper, struck) if target else ""


def _kill_loading(world: World, what: Strike, struck: Struck) -> str:
    deadline = time.monotonic() + LOADING_SECONDS
    while time.monotonic() < deadline:
        if pick(_living(world, is_loaded=False), what.choice):
            time.sleep(what.delay_seconds)
            if target := pick(_living(world, is_loaded=False), what.choice):
                return _end(target, target.child, struck)
        time.sleep(LOOK_SECONDS)
    return ""


def _pause_model(world: World, what: Strike, struck: Struck) -> str:
    target = pick([found for found in model_processes(world.runtime_dir) if found.child.is_alive], what.choice)
    if target is None:
        return ""
    struck.instances.add(target.instance_id)
    _stop_for(target.child, what.hold_seconds)
    return f"stopped process {target.child.pid} of {target.instance_id[:8]} for {what.hold_seconds} s"


def _plant_claim(world: World, _what: Strike, _struck: Struck) -> str:
    runtime = Runtime.objects.get(kind="llama_server")
    return f"planted {world.decoy.plant_claim(world.runtime_dir / f'llama_server-{runtime.pk}')[:8]}"


def _living(world: World, *, is_loaded: bool) -> list[ModelProcess]:
    loaded = {str(pk) for pk in ModelInstance.objects.filter(state="loaded").values_list("instance_id", flat=True)}
    found = [process for process in model_processes(world.runtime_dir) if process.child.is_alive]
    return [process for process in found if (process.instance_id in loaded) == is_loaded]


def _end(target: ModelProcess, mark: ProcessMark, struck: Struck) -> str:
    struck.instances.add(target.instance_id)
    return f"killed process {mark.pid} of {target.instance_id[:8]}" if mark.send(signal.SIGKILL) else ""


_STRIKING: dict[Fault, Callable[[World, Strike, Struck], str]] = {
    Fault.WORKER: _kill_part("worker"),
    Fault.WEB: _kill_part("web"),
    Fault.SCHEDULER: _kill_part("scheduler"),
    Fault.BROKER: _kill_part("broker"),
    Fault.MODEL: _kill_model,
    Fault.LOADING: _kill_loading,
    Fault.KEEPER: _kill_keeper,
    Fault.PAUSE: _pause_worker,
    Fault.HANG: _pause_worker,
    Fault.MODEL_PAUSE: _pause_model,
    Fault.STALE_FOLDER: _plant_claim,
}
