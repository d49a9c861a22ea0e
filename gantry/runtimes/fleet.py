"""Several runtimes that share one memory pool, behind the interface of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import TypeVar

from gantry.runtimes.base import (
    AvailableModel,
    Capabilities,
    LoadProgress,
    LoadRequest,
    ProgressKind,
    RunningInstance,
    Runtime,
    RuntimeHealth,
    Verification,
)
from gantry.runtimes.exceptions import RuntimeAway, RuntimeFault, VerifyFailed

T = TypeVar("T")
Lookup = (
    Callable[[str], str | None] | Mapping[str, str]
)  # id -> key of a runtime, None (or missing) when it is not known


class Fleet:
    """A `Runtime` made of several. What is about a model goes to the model's runtime, what is about an instance to the one that has it.

    Lives as long as one job: it remembers who has which instance, not who has gone away.
    """

    kind = "fleet"

    def __init__(
        self,
        runtimes: Mapping[str, Runtime],
        runtime_of: Lookup,
        *,
        owner_of: Lookup | None = None,
        target_id: str = "",
        answers_of: Callable[[str], int] = lambda _: 0,
    ) -> None:
        """Put them together. Asks none of them.

        Args:
            runtimes: key, of any kind -> adapter.
            runtime_of: model id -> the key of its runtime.
            owner_of: instance id -> key, as far as the caller knows; who has the others is asked of the runtimes.
            answers_of: instance id -> how many of its answers the caller knows of, for servers that do not count them.
            target_id: the model whose runtime's capabilities count; without one, what all of them can do.

        Raises:
            RuntimeAway: none of them serves the target.
        """
        self._runtimes = dict(runtimes)
        self._runtime_of = _asking(runtime_of)
        self._owner_of = _asking(owner_of or {})
        self._answers_of = answers_of
        # Both are remembered: the caller's answers may come from a database, which other threads must not ask.
        self._keys: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self.capabilities = self._of_model(target_id).capabilities if target_id else _common(self._runtimes.values())

    # All of them

    def check(self) -> RuntimeHealth:
        """Usable when one of them is; the detail tells of those that are not."""
        each = {key: runtime.check() for key, runtime in self._runtimes.items()}
        bad = {key: health for key, health in each.items() if not health.is_ok}
        return RuntimeHealth(
            is_ok=len(bad) < len(each),
            version=", ".join(health.version for health in each.values() if health.is_ok),
            detail=" ".join(f"{key}: {health.detail}" for key, health in bad.items()),
            code=next((health.code for health in bad.values()), None),
        )

    def running(self) -> Sequence[RunningInstance]:
        """What all of them hold; one that is away is left out, unless all are: then its fault is raised.

        An instance that is missing here is therefore not proven dead: ask `find` for a certain one.
        """
        found: list[RunningInstance] = []
        for key, instances in self._ask_all(lambda runtime: runtime.running()):
            self._owners.update((instance.instance_id, key) for instance in instances)
            found.extend(instances)
        return found

    def models(self) -> Sequence[AvailableModel]:
        """What all of them offer by themselves, with `running`'s rule for one that is away."""
        return list(chain.from_iterable(models for _, models in self._ask_all(lambda runtime: runtime.models())))

    def find(self, instance_id: str) -> RunningInstance | None:
        """One instance as it is in reality, dead or alive; None when nobody has it.

        Raises:
            RuntimeFault: the runtime that has it, or may have it, is away: nothing can be said.
        """
        owner = self._owner(instance_id)
        return _among(owner.running(), instance_id) if owner else None

    # By model

    def check_load(self, request: LoadRequest) -> None:
        """Ask the model's runtime."""
        self._of_model(request.model_id).check_load(request)

    def prefetch(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> int:
        """Let the model's runtime read ahead."""
        try:
            runtime = self._of_model(request.model_id)
        except RuntimeAway:
            return 0
        return runtime.prefetch(request, is_cancelled)

    def prepare(self, request: LoadRequest) -> None:
        """Let the model's runtime prepare it."""
        with suppress(RuntimeAway):
            self._of_model(request.model_id).prepare(request)

    def drop_prepared(self) -> None:
        """Let all of them drop what they prepared."""
        for runtime in self._runtimes.values():
            runtime.drop_prepared()

    def load(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> Iterator[LoadProgress]:
        """Load on the model's runtime."""
        runtime = self._of_model(request.model_id)
        self._owners[request.instance_id] = self._keys[request.model_id]
        yield from runtime.load(request, is_cancelled)

    # By instance

    def unload(self, instance_id: str) -> None:
        """Unload from the runtime that has it; where nobody has it, it is unloaded."""
        if owner := self._owner(instance_id):
            owner.unload(instance_id)

    def forget(self, instance_id: str) -> None:
        """Let the runtime that has it forget it."""
        if owner := self._owner(instance_id):
            owner.forget(instance_id)

    def verify(self, instance_id: str) -> Verification:
        """Try it on the runtime that has it."""
        owner = self._owner(instance_id)
        if owner is None:
            raise VerifyFailed("No runtime of this pool has it any more.")
        return owner.verify(instance_id)

    def busy_count(self, instance_id: str) -> int:
        """Ask the runtime that has it, 0 where nobody has it; of one that does not count them, no fewer than the caller knows of."""
        owner = self._owner(instance_id)
        if owner is None:
            return 0
        busy = owner.busy_count(instance_id)
        return busy if owner.capabilities.counts_answers else max(busy, self._answers_of(instance_id))

    def log_tail(self, instance_id: str, lines: int = 50) -> tuple[str, ...]:
        """Ask the runtime that has it; nothing where nobody has it."""
        owner = self._owner(instance_id)
        return owner.log_tail(instance_id, lines) if owner else ()

    # Who is meant

    def _of_model(self, model_id: str) -> Runtime:
        key = self._keys.get(model_id) or self._runtime_of(model_id)
        if key is None or key not in self._runtimes:
            raise RuntimeAway(f"No runtime of this pool serves {model_id}.")
        self._keys[model_id] = key
        return self._runtimes[key]

    def _owner(self, instance_id: str) -> Runtime | None:
        """The runtime that has an instance; asked for once.

        Raises:
            RuntimeFault: none of those that answer has it, and one does not answer.
        """
        key = self._owners.get(instance_id) or self._owner_of(instance_id)
        if key is None or key not in self._runtimes:
            key = self._look_for(instance_id)
        if key is None:
            return None
        self._owners[instance_id] = key
        return self._runtimes[key]

    def _look_for(self, instance_id: str) -> str | None:
        """Ask one after the other until one has it."""
        faults = []
        for key, runtime in self._runtimes.items():
            try:
                if _among(runtime.running(), instance_id):
                    return key
            except RuntimeFault as fault:
                faults.append(fault)
        if faults:
            raise faults[0]
        return None

    def _ask_all(self, question: Callable[[Runtime], Sequence[T]]) -> list[tuple[str, Sequence[T]]]:
        answers, faults = [], []
        for key, runtime in self._runtimes.items():
            try:
                answers.append((key, question(runtime)))
            except RuntimeFault as fault:
                faults.append(fault)
        if faults and not answers:
            raise faults[0]
        return answers


def find_instance(runtime: Runtime, instance_id: str) -> RunningInstance | None:
    """One instance as a runtime has it now, dead or alive; None when it is not there.

    Raises:
        RuntimeFault: nothing can be said, for the runtime is away. In a fleet only the one that matters counts.
    """
    if isinstance(runtime, Fleet):
        return runtime.find(instance_id)
    return _among(runtime.running(), instance_id)


def _common(runtimes: Iterable[Runtime]) -> Capabilities:
    """What all of them can do."""
    each = [runtime.capabilities for runtime in runtimes]
    kinds = {one.progress for one in each}
    return Capabilities(
        progress=kinds.pop() if len(kinds) == 1 else ProgressKind.NONE,
        can_cancel_load=all(one.can_cancel_load for one in each),
        holds_many=all(one.holds_many for one in each),
        owns_processes=all(one.owns_processes for one in each),
        reports_memory=all(one.reports_memory for one in each),
        lists_models=all(one.lists_models for one in each),
        takes_devices=all(one.takes_devices for one in each),
        counts_answers=all(one.counts_answers for one in each),
        answers_any_name=all(one.answers_any_name for one in each),
    )


def _asking(lookup: Lookup) -> Callable[[str], str | None]:
    return lookup.get if isinstance(lookup, Mapping) else lookup


def _among(instances: Sequence[RunningInstance], instance_id: str) -> RunningInstance | None:
    return next((instance for instance in instances if instance.instance_id == instance_id), None)
