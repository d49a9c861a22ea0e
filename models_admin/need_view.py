"""What a model was estimated to need and what it was measured to take, side by side, as the page of its definition shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gantry.planning.need_parts import NeedParts
from gantry.planning.types import TimeRange
from models_admin.estimated_need import estimated_bytes, estimated_parts
from models_admin.models import LoadRecord, ModelDefinition
from models_admin.specs import parameters_hash, spec_for


@dataclass(frozen=True, slots=True)
class NeedView:
    """Memory in bytes, times in seconds. What was measured is of loads with the present parameters only."""

    parts: NeedParts | None  # of the estimate; None when only the file's size is known
    estimated_bytes: int
    measured_bytes: int  # held after the latest load that was measured; 0: none was
    measured_at: datetime | None
    load_time: TimeRange  # from history, or by the file's size when there is none
    foretold_seconds: float | None  # what the latest load was expected to take
    took_seconds: float | None  # and what it took

    @property
    def difference_percent(self) -> float | None:
        """How far the estimate is off, in percent of what was measured: above 0 when it is too high. None: not measured."""
        if not self.measured_bytes:
            return None
        return 100.0 * (self.estimated_bytes - self.measured_bytes) / self.measured_bytes

    @property
    def difference_words(self) -> str:
        """The same as people say it; "" when nothing was measured."""
        percent = self.difference_percent
        if percent is None:
            return ""
        if abs(percent) < 0.5:
            return "as estimated"
        return f"the estimate is {abs(percent):.0f} % {'above' if percent > 0 else 'below'} it"


def need_view(model: ModelDefinition) -> NeedView:
    """Estimate and history of a model, with its runtime and pool. Five queries."""
    host = model.runtime.pool.host
    loads = LoadRecord.objects.filter(model=model, parameters_hash=parameters_hash(model), host=host)
    measured = loads.filter(held_bytes__gt=0).order_by("-id").first()
    last = loads.filter(load_seconds__gt=0).order_by("-id").first()
    return NeedView(
        parts=estimated_parts(model),
        estimated_bytes=estimated_bytes(model),
        measured_bytes=measured.held_bytes if measured else 0,
        measured_at=measured.at if measured else None,
        load_time=spec_for(model, host).load_time,
        foretold_seconds=last.expected_seconds if last else None,
        took_seconds=last.load_seconds if last else None,
    )
