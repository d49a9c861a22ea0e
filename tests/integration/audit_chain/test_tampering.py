"""What is changed by SQL is found and named."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from django.db import transaction

from models_admin import audit, audit_chain
from models_admin.actor import SYSTEM
from models_admin.audit import AuditEvent
from models_admin.audit_hash import GENESIS
from models_admin.models import AuditEntry, AuditHead
from tests.audit_rows import fill_audit
from tests.integration.audit_chain.helpers import TABLE, put, resealed, sql, stored

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = 24


def shift(first: int, by: int) -> None:
    """Move rows to other numbers, over free ones so that no two meet."""
    sql(f"UPDATE {TABLE} SET id = id + 1000000 WHERE id >= %s", first)
    sql(f"UPDATE {TABLE} SET id = id - 1000000 + %s WHERE id >= 1000000", by)


# Each does something to the log and gives the number of the entry that has to be named.


def edit(chance: random.Random) -> int:
    number = chance.randint(1, ROWS)
    column, value = chance.choice(
        [("actor_name", "eve"), ("outcome", "failed"), ("at", "2020-01-01 00:00:00"), ("after", '{"seconds": 1}'),
         ("actor_id", 77), ("address", "192.0.2.1"), ("previous_hash", "0" * 63 + "1"), ("hash", "f" * 64)]
    )  # fmt: skip
    sql(f"UPDATE {TABLE} SET {column} = %s WHERE id = %s", value, number)
    return number


def edit_and_reseal(chance: random.Random) -> int:
    number = chance.randint(1, ROWS)
    row = resealed({**stored(number), "actor_name": "eve"})
    sql(f"UPDATE {TABLE} SET actor_name = 'eve', hash = %s WHERE id = %s", row["hash"], number)
    return number


def delete(chance: random.Random) -> int:
    number = chance.randint(1, ROWS)
    sql(f"DELETE FROM {TABLE} WHERE id = %s", number)
    return number


def delete_and_close_the_gap(chance: random.Random) -> int:
    number = chance.randint(1, ROWS - 1)
    sql(f"DELETE FROM {TABLE} WHERE id = %s", number)
    shift(number + 1, -1)
    return number


def insert_between(chance: random.Random) -> int:
    number = chance.randint(2, ROWS)
    shift(number, 1)
    before = stored(number - 1)
    row = {**before, "id": number, "actor_name": "eve", "previous_hash": before["hash"]}
    put(chance.choice([row, resealed(row)]))
    return number


def insert_outside(chance: random.Random) -> int:
    last = stored(ROWS)
    number, previous = chance.choice([(0, GENESIS), (-5, GENESIS), (ROWS + 1, last["hash"])])
    put(resealed({**last, "id": number, "actor_name": "eve", "previous_hash": previous}))
    return number


def reorder(chance: random.Random) -> int:
    first, second = sorted(chance.sample(range(1, ROWS + 1), 2))
    sql(f"UPDATE {TABLE} SET id = -1 WHERE id = %s", first)
    sql(f"UPDATE {TABLE} SET id = %s WHERE id = %s", first, second)
    sql(f"UPDATE {TABLE} SET id = %s WHERE id = -1", second)
    return first


def reorder_moments(chance: random.Random) -> int:
    first, second = sorted(chance.sample(range(1, ROWS + 1), 2))
    one, other = stored(first)["at"], stored(second)["at"]
    sql(f"UPDATE {TABLE} SET at = %s WHERE id = %s", other, first)
    sql(f"UPDATE {TABLE} SET at = %s WHERE id = %s", one, second)
    return first


TAMPERING: list[Callable[[random.Random], int]] = [
    edit, edit_and_reseal, delete, delete_and_close_the_gap, insert_between, insert_outside, reorder, reorder_moments,
]  # fmt: skip


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda function: function.__name__)
def test_tampering_is_found_in_100_of_100_tries_and_the_right_entry_named(
    tamper: Callable[[random.Random], int],
) -> None:
    fill_audit(ROWS)
    assert audit_chain.verify().is_whole
    wrong = []
    for attempt in range(100):
        with transaction.atomic():
            expected = tamper(random.Random(f"{tamper.__name__}-{attempt}"))
            broken = audit_chain.verify().broken
            if broken is None or broken.entry_id != expected:
                wrong.append((attempt, expected, broken))
            transaction.set_rollback(True)
    assert not wrong
    assert audit_chain.verify().is_whole


def test_a_chain_rewritten_from_some_entry_to_its_end_is_found() -> None:
    fill_audit(ROWS)
    previous = stored(9)["hash"]
    for number in range(10, ROWS + 1):
        row = resealed({**stored(number), "actor_name": "eve", "previous_hash": previous})
        previous = row["hash"]
        sql(f"DELETE FROM {TABLE} WHERE id = %s", number)
        put(row)
    sql("UPDATE models_admin_audithead SET hash = %s", previous)

    assert not audit_chain.verify().is_whole
    audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="later entries do not hide it")
    assert not audit_chain.verify().is_whole


def test_a_removed_head_is_found() -> None:
    fill_audit(3)
    AuditHead.objects.all().delete()

    audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="host")

    assert AuditEntry.objects.order_by("pk").values_list("pk", flat=True).last() == 4
    assert "not signed" in (audit_chain.verify().broken or audit_chain.Break(None, "")).text
