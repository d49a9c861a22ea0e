"""Clashes between settings that each look right alone; told by `manage.py check` and at every start."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's own name

from gantry.env import environment


@register(Tags.security)
def check_reach(app_configs: Any, **options: Any) -> list[CheckMessage]:
    """Who can reach the web server fits what it shows and answers to."""
    env = environment()
    if _is_loopback(env.gantry_bind):
        return []
    found: list[CheckMessage] = []
    if settings.DEBUG:
        found.append(
            Error(
                f"GANTRY_DEBUG is on while GANTRY_BIND={env.gantry_bind} lets other machines in.",
                hint="Error pages would show settings and code to anybody: switch off one of the two.",
                id="gantry.E001",
            )
        )
    if not env.gantry_allowed_hosts:
        found.append(
            Warning(
                f"GANTRY_BIND={env.gantry_bind} lets other machines in, but GANTRY_ALLOWED_HOSTS is empty.",
                hint="Set it to the names by which people open Gantry; under any other name it refuses to answer.",
                id="gantry.W001",
            )
        )
    return found


def _is_loopback(bind: str) -> bool:
    try:
        return ipaddress.ip_address(bind.strip("[]")).is_loopback
    except ValueError:
        return bind == "localhost"
