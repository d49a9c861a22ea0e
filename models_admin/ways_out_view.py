"""Ways out of a plan that does not fit, in words: a sentence, a button, and the address that makes the new plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from django.urls import reverse

from gantry.planning.ways_out import WayOut, WayOutKind
from models_admin.models import ModelDefinition
from models_admin.templatetags.gantry_format import gigabytes


@dataclass(frozen=True, slots=True)
class WayOutView:
    """One way out."""

    sentence: str
    button: str
    url: str


def ways_out_views(model: ModelDefinition, ways: Sequence[WayOut], *, may_change: bool) -> list[WayOutView]:
    """As people read them. Unpinning is offered to those who may change models only."""
    numbers = dict(
        ModelDefinition.objects.filter(model_id__in={id_ for way in ways for id_ in way.model_ids}).values_list(
            "model_id", "pk"
        )
    )
    return [
        _VIEWS[way.kind](model, way, numbers)
        for way in ways
        if may_change or way.kind != WayOutKind.UNPIN
        if all(id_ in numbers for id_ in way.model_ids)
    ]


_Numbers = dict[str, int]


def _context(model: ModelDefinition, way: WayOut, _numbers: _Numbers) -> WayOutView:
    # The address carries plain digits; people read them in groups.
    return WayOutView(
        f"With a context of {way.context:,} tokens it needs {gigabytes(way.bytes)}.",
        f"Plan it with {way.context:,} tokens",
        _switch_url(model.pk, [("context", str(way.context))]),
    )


def _unpin(model: ModelDefinition, way: WayOut, _numbers: _Numbers) -> WayOutView:
    names = " and ".join(way.names)
    verb = "holds" if len(way.names) == 1 else "hold"
    return WayOutView(
        f"{names} {verb} {gigabytes(way.bytes)} and {'is' if len(way.names) == 1 else 'are'} pinned.",
        f"Plan it with {names} unpinned",
        _switch_url(model.pk, [("unpin", model_id) for model_id in way.model_ids]),
    )


def _unload(_model: ModelDefinition, way: WayOut, numbers: _Numbers) -> WayOutView:
    """One after the other: the dialog of the next one comes with the next try."""
    names = " and ".join(way.names)
    return WayOutView(
        f"Unloading {names} would free {gigabytes(way.bytes)}.",
        f"Unload {way.names[0]} first",
        reverse("admin:model_unload", args=[numbers[way.model_ids[0]]]),
    )


def _smaller(_model: ModelDefinition, way: WayOut, numbers: _Numbers) -> WayOutView:
    return WayOutView(
        f"{way.names[0]} fits: it needs {gigabytes(way.bytes)}.",
        f"Plan {way.names[0]} instead",
        _switch_url(numbers[way.model_ids[0]]),
    )


_VIEWS: dict[WayOutKind, Callable[[ModelDefinition, WayOut, _Numbers], WayOutView]] = {
    WayOutKind.CONTEXT: _context,
    WayOutKind.UNPIN: _unpin,
    WayOutKind.UNLOAD: _unload,
    WayOutKind.SMALLER_MODEL: _smaller,
}


def _switch_url(pk: int, query: Sequence[tuple[str, str]] = ()) -> str:
    url = reverse("admin:model_switch", args=[pk])
    return f"{url}?{urlencode(query)}" if query else url
