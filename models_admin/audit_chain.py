"""Looking through the chain of audit entries for the first that is not as it was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import connection, transaction
from django.utils import timezone

from models_admin import audit_triggers
from models_admin.audit_hash import GENESIS, seal
from models_admin.models import AuditAnchor, AuditEntry, AuditHead

log = structlog.get_logger(__name__)

BATCH = 2000  # rows in memory at once
_LEAST = -(2**63)
Values = dict[str, Any]  # AuditEntry.sealed_values() and "hash"


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry that is not as it was written; without a number when it is the head or an anchor instead."""

    entry_id: int | None
    text: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a look through the chain found. `count` entries were looked at, those before a break are right."""

    count: int
    first_id: int
    last_id: int
    last_hash: str
    broken: Break | None
    warnings: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Nothing is broken."""
        return self.broken is None

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        broken = {"entry": self.broken.entry_id, "text": self.broken.text} if self.broken else None
        return {
            "is_whole": self.is_whole,
            "entries": self.count,
            "first": self.first_id,
            "last": self.last_id,
            "last_hash": self.last_hash,
            "broken": broken,
            "warnings": list(self.warnings),
        }


class Walk:
    """Goes through entries in the order of their numbers; stops before the first that is broken.

    An entry is broken when its hash is not that of its values, or when it does not name the hash of the one before. Where both
    neighbours are right in themselves and only the link between them is not, the entry after them tells which of the two was rewritten.
    """

    def __init__(self, start_id: int = 0, start_hash: str = GENESIS) -> None:
        self.first_id, self.last_id, self.last_hash, self.count = 0, start_id, start_hash, 0
        self.broken: Break | None = None
        self._start_id, self._before_last_hash = start_id, ""

    def over(self, entries: Iterable[Values]) -> Iterator[Values]:
        """The entries that are right, one by one. After the end `broken` says whether there was another."""
        rows = iter(entries)
        while (row := self._read(rows)) is not None:
            self.broken = self._fault_of(row, rows)
            if self.broken:
                return
            self._before_last_hash, self.last_hash, self.last_id = self.last_hash, row["hash"], row["id"]
            self.first_id, self.count = self.first_id or row["id"], self.count + 1
            yield row

    def _read(self, rows: Iterator[Values]) -> Values | None:
        try:
            return next(rows, None)
        except (ValueError, TypeError, KeyError):  # a moment or a text that is none: nothing of ours wrote it
            self.broken = Break(self.last_id + 1, f"entry {self.last_id + 1} cannot be read")
            return None

    def _fault_of(self, row: Values, rest: Iterator[Values]) -> Break | None:
        number, is_linked = row["id"], row["previous_hash"] == self.last_hash
        if number <= self.last_id:
            return Break(number, f"entry {number} was inserted")
        is_intact = seal({name: value for name, value in row.items() if name != "hash"}) == row["hash"]
        if is_intact and is_linked:
            return None
        if not is_linked and self._is_inserted(row):
            return Break(self.last_id, f"entry {self.last_id} was inserted")
        if not is_intact:
            return Break(number, f"entry {number} was changed, or put where another was")
        return self._between(row, self._read(rest)) if number == self.last_id + 1 else self._missing(number)

    def _is_inserted(self, row: Values) -> bool:
        """Whether the row follows the entry before the last, so that the last one is too many."""
        return self.count > 0 and row["previous_hash"] == self._before_last_hash

    def _missing(self, number: int) -> Break:
        first = self.last_id + 1
        what = f"entry {first} is" if first == number - 1 else f"entries {first} to {number - 1} are"
        return Break(first, f"{what} missing before entry {number}")

    def _between(self, row: Values, after: Values | None) -> Break:
        """Which of two neighbours was rewritten that are right in themselves: the later one unless its successor stands by it."""
        is_vouched_for = after is None or after["previous_hash"] == row["hash"]
        guilty = self.last_id if is_vouched_for and self.last_id > self._start_id else row["id"]
        return Break(guilty, f"entry {guilty} was rewritten with a hash of its own")


def verify() -> ChainReport:
    """Look through everything that is not archived, in constant memory. Entries may be added meanwhile.

    A row takes about 40 µs: 1,000,000 rows the better part of a minute.
    """
    anchor = AuditAnchor.objects.first()
    if anchor and not anchor.is_genuine:
        return ChainReport(0, 0, 0, "", Break(None, f"the anchor of the archive {anchor.file_name} was changed"))
    walk = Walk(anchor.entry_id, anchor.hash) if anchor else Walk()
    head = _walk_to_the_end(walk)
    broken = walk.broken or _break_at_head(walk, head, anchor)
    return ChainReport(walk.count, walk.first_id, walk.last_id, walk.last_hash, broken, tuple(_warnings()))


def verify_and_note() -> ChainReport:
    """The same, noted beside the head for the review page; an error is logged when the chain is broken."""
    report = verify()
    broken = report.broken
    with transaction.atomic():
        AuditHead.locked()
        AuditHead.objects.update(
            verified_at=timezone.now(),
            verified_count=report.count,
            broken_entry_id=broken.entry_id if broken else None,
            broken_text=broken.text[:300] if broken else "",
        )
    if broken:
        log.error("audit_chain_broken", entry=broken.entry_id, reason=broken.text)
    else:
        log.info("audit_chain_verified", entries=report.count)
    return report


def sign_anew() -> None:
    """Sign the present end of the chain, after SECRET_KEY was changed or a break was looked into."""
    with transaction.atomic():
        AuditHead.locked().keep(is_genuine=True)


def entries_after(entry_id: int) -> Iterator[Values]:
    """Entries behind this one, in the order of their numbers, `BATCH` in memory at once."""
    rows = AuditEntry.objects.filter(pk__gt=entry_id).order_by("pk").iterator(chunk_size=BATCH)
    return ({**entry.sealed_values(), "hash": entry.hash} for entry in rows)


def _walk_to_the_end(walk: Walk) -> AuditHead:
    """Walk until the head says that this was the last entry, also when some are added meanwhile. The head as it was then."""
    while True:
        before = walk.last_id
        # From the anchor on, also what numbers below it: nothing that stands there belongs there.
        for _row in walk.over(entries_after(before if walk.count else _LEAST)):
            pass
        head = AuditHead.current()
        if walk.broken or walk.last_id >= head.entry_id or walk.last_id == before:
            return head


def _break_at_head(walk: Walk, head: AuditHead, anchor: AuditAnchor | None) -> Break | None:
    if not head.is_genuine:
        return Break(
            None, "the end of the chain is not signed: rows were rewritten or removed, or SECRET_KEY was changed"
        )
    if walk.last_id < head.entry_id:
        return Break(walk.last_id + 1, f"entries {walk.last_id + 1} to {head.entry_id} are missing at the end")
    if walk.last_id > head.entry_id:
        return Break(head.entry_id + 1, f"entry {head.entry_id + 1} was inserted at the end")
    if walk.last_hash != head.hash:
        return Break(walk.last_id, f"entry {walk.last_id} was rewritten with a hash of its own")
    return None


def _warnings() -> Iterator[str]:
    if names := audit_triggers.missing(connection):
        yield f"the database would let entries be changed, its triggers are missing ({', '.join(names)}): run `manage.py migrate`"
