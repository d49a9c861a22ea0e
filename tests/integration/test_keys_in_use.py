"""Keys that are used by many requests at once."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from models_admin import keys
from models_admin.actor import COMMAND
from models_admin.models import ApiKey


def test_requests_that_come_while_a_use_is_written_write_nothing(member: User) -> None:
    key, _ = keys.create_key(member, actor=COMMAND, name="busy", scopes=["status"])
    at_the_same_moment = [ApiKey.objects.get() for _ in range(3)]
    with CaptureQueriesContext(connection) as captured:
        for row in at_the_same_moment:
            keys._note_use(row)
    assert len(captured) == 1
    key.refresh_from_db()
    assert key.last_used_at is not None
