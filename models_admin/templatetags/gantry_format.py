"""Figures as people read them: GB with one decimal, "12 s", "1 min 20 s"."""

from __future__ import annotations

from django import template

register = template.Library()


@register.filter
def gigabytes(size_bytes: int | float | None) -> str:
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
