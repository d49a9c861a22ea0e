"""What the tests of the audit review page share."""

from __future__ import annotations

import re

from django.contrib.auth.models import User
from django.test import Client

from models_admin import audit, audit_review
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.audit_review import AuditFilter
from models_admin.models import AuditEntry, SwitchJob

LIST = "/admin/models_admin/auditentry/"


def page(client: Client, address: str = LIST) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def lines(client: Client, query: str = "") -> list[str]:
    """The sentences on the page, top first, with how long it took and how it ended."""
    rows = re.findall(r"<tr>\s*<td.*?</tr>", page(client, f"{LIST}?{query}"), re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)[1:] for row in rows]
    return [" · ".join(filter(None, (_text(cell) for cell in row))) for row in cells]


def _text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).replace("&amp;", "&").split())


def switched(job: SwitchJob, person: User, outcome: str = "succeeded", took: float = 14) -> AuditEntry:
    return audit.write(
        AuditEvent.JOB_END,
        actor=Actor(person, "page", "192.0.2.1"),
        object_text=job.target_name,
        job=job,
        before={"active": "SmolLM2"},
        after={"kind": "switch", "seconds": took, "stages": [{"step": "load", "model": "Gemma 3", "seconds": 12.5}]},
        outcome=outcome,
    )


def shown(query: str) -> list[int]:
    from django.http import QueryDict

    page = audit_review.read_page(AuditFilter.from_query(QueryDict(query)), limit=5000)
    return [entry.pk for entry in page.entries]
