"""Figures as people read them: GB with one decimal, "12 s", "1 min 20 s"."""

from __future__ import annotations

from datetime import datetime

from django import template
from django.utils import timezone

register = template.Library()


@register.filter
def gigabytes(size_bytes: float | None) -> str:
    """Bytes as GB with one decimal; below 0.1 GB as MB. "unknown" for nothing."""
    if not size_bytes:
        return "unknown" if size_bytes is None else "0 MB"
    if size_bytes < 100_000_000:
        return f"{max(1, round(size_bytes / 1e6))} MB"
    return f"{size_bytes / 1e9:.1f} GB"


@register.filter
def seconds(value: float | None) -> str:
    """Seconds as "12 s", "1 min 20 s" or "2 h 5 min"; below 10 s with one decimal when it has one. "unknown" for None."""
    if value is None:
        return "unknown"
    if value < 9.95 and abs(value - round(value)) >= 0.05:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(whole // 60, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


@register.filter
def seconds_left(value: float | None) -> str:
    """Time left in whole seconds, never "0 s"."""
    return "unknown" if value is None else seconds(max(1, round(value)))


@register.filter
def gigabytes_or_dash(size_bytes: int | None) -> str:
    """Like `gigabytes`, with a dash for what is not known."""
    return gigabytes(size_bytes) if size_bytes else "–"


@register.filter
def tokens(count: int | None) -> str:
    """A context length as people say it: 8192 as "8k", 131072 as "128k". A dash for None."""
    if not count:
        return "–"
    return f"{round(count / 1024)}k" if count >= 1024 else str(count)


@register.filter
def ago(moment: datetime | None) -> str:
    """How long ago: "3 s ago", "5 min ago", "2 h ago", then the date. static/js/times.js says the same in the browser."""
    if moment is None:
        return "never"
    passed = max(0, int((timezone.now() - moment).total_seconds()))
    if passed < 60:
        return f"{passed} s ago"
    if passed < 3600:
        return f"{passed // 60} min ago"
    if passed < 86400:
        return f"{passed // 3600} h ago"
    local = timezone.localtime(moment)
    return local.strftime("%-d %b" if local.year == timezone.localtime().year else "%-d %b %Y")
