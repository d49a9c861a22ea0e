"""Builders of planning's values."""

from __future__ import annotations

from hypothesis import strategies as st

from gantry.planning.types import DeviceMemory, LoadedModel, MemoryBudget, ModelSpec, TimeRange

TIMES = TimeRange(4.0, 3.0, 6.0, 2)


def spec(need_bytes: int, model_id: str = "target", **values: object) -> ModelSpec:
    """A model that could be loaded."""
    return ModelSpec(model_id, model_id.upper(), need_bytes, need_bytes, TIMES, **values)  # type: ignore[arg-type]


def held(model_id: str, held_bytes: int, **values: object) -> LoadedModel:
    """A model that is loaded."""
    fields = {"last_used": 0.0, **values}
    return LoadedModel(f"instance-{model_id}", model_id, model_id.upper(), held_bytes, **fields)  # type: ignore[arg-type]


def on_devices(**free_and_total: tuple[int, int]) -> MemoryBudget:
    """A pool of devices: id -> (free, total)."""
    devices = tuple(DeviceMemory(name, name, total, free) for name, (free, total) in free_and_total.items())
    return MemoryBudget(
        sum(device.total_bytes for device in devices), sum(device.free_bytes for device in devices), devices
    )


@st.composite
def loaded_sets(draw: st.DrawFn, most: int = 8) -> list[LoadedModel]:
    """Any models that may be loaded together."""
    count = draw(st.integers(0, most))
    return [
        held(
            str(number),
            draw(st.integers(0, 30)),
            last_used=draw(st.integers(0, 5)),
            is_busy=draw(st.booleans()),
            is_pinned=draw(st.integers(0, 3)) == 0,
            reload_seconds=draw(st.integers(0, 8)) / 2,
        )
        for number in range(count)
    ]
