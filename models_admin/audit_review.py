"""Reading the audit log: filters, search, pages. No count and no offset: every page is read from an index, however long the log is.

Numbers and moments rise together, so a span of days is a span of numbers, which goes with every index.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, time, timedelta

from django.db import connection
from django.db.models import Prefetch, QuerySet
from django.utils import timezone

from models_admin.models import AuditEntry, AuditHead, SwitchJob

MOST_VALUES = 5000  # different names that a search looks at
MOST_MATCHES = 100  # names that a search may match
BATCH = 500
_COLUMNS = {"who": "actor_name", "what": "event", "model": "object_text", "outcome": "outcome"}
_SEARCHED = ("actor_name", "object_text", "address")


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are wanted; empty means all. `text` is looked for in the names of people and objects, and in addresses."""

    who: str = ""
    what: str = ""  # audit.AuditEvent
    model: str = ""  # the object: a model's name, or a runtime's, a user's …
    outcome: str = ""
    since: date | None = None  # first and last day, in the server's time zone
    until: date | None = None
    text: str = ""

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> AuditFilter:
        """The filter of an address; `q` is the text. A day that is none counts as not given."""
        names = {name: _clean(query.get(name)) for name in _COLUMNS}
        return cls(**names, since=_day(query.get("since")), until=_day(query.get("until")), text=_clean(query.get("q")))

    def as_query(self) -> dict[str, str]:
        """The same as parameters of an address, without what is empty."""
        given = {("q" if name == "text" else name): value for name, value in asdict(self).items() if value}
        return {name: value.isoformat() if isinstance(value, date) else value for name, value in given.items()}

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.as_query())


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first. `older` and `newer` are numbers to read on from; None where nothing follows."""

    entries: list[AuditEntry]
    older: int | None
    newer: int | None


def read_page(wanted: AuditFilter, *, below: int | None = None, above: int | None = None, limit: int = 50) -> AuditPage:
    """The newest entries; those below a number; or those above one, nearest first."""
    is_upwards = above is not None
    numbers = _numbers(wanted, below=below, above=above, is_upwards=is_upwards, limit=limit + 1)
    has_more, numbers = len(numbers) > limit, sorted(numbers[:limit], reverse=True)
    has_newer = has_more if is_upwards else below is not None
    has_older = (is_upwards and bool(numbers)) or has_more if is_upwards else has_more
    return AuditPage(
        _entries(numbers),
        older=numbers[-1] if has_older and numbers else None,
        newer=numbers[0] if has_newer and numbers else None,
    )


def read_all(wanted: AuditFilter) -> Iterator[list[AuditEntry]]:
    """Every entry that is wanted, oldest first, a batch at a time; those written meanwhile are left out."""
    last, end = None, AuditHead.current().entry_id + 1
    while numbers := _numbers(wanted, above=last, below=end, is_upwards=True, limit=BATCH):
        last = numbers[-1]
        yield list(AuditEntry.objects.filter(pk__in=numbers).order_by("pk"))


def known_values(column: str, most: int = MOST_VALUES) -> list[str]:
    """The different values of a column that has an index, in order: one look into the index for each, not one for each row."""
    name, table = connection.ops.quote_name(column), connection.ops.quote_name("models_admin_auditentry")
    sql = (  # nothing of this comes from outside
        f"WITH RECURSIVE known(value) AS (SELECT MIN({name}) FROM {table} UNION ALL "  # noqa: S608
        f"SELECT (SELECT MIN({name}) FROM {table} WHERE {name} > known.value) FROM known WHERE known.value IS NOT NULL) "
        "SELECT value FROM known WHERE value IS NOT NULL LIMIT %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [most])
        return [row[0] for row in cursor.fetchall()]


def rows_of(wanted: AuditFilter, below: int | None = None, above: int | None = None) -> QuerySet[AuditEntry]:
    """The entries that a filter wants, its text left out."""
    given = {column: getattr(wanted, name) for name, column in _COLUMNS.items() if getattr(wanted, name)}
    rows = AuditEntry.objects.filter(**given)
    first, end = _number_at(wanted.since), _number_at(wanted.until and wanted.until + timedelta(days=1))
    for bound in (below, end):
        rows = rows if bound is None else rows.filter(pk__lt=bound)
    for bound in (above, None if first is None else first - 1):
        rows = rows if bound is None else rows.filter(pk__gt=bound)
    return rows


def _numbers(
    wanted: AuditFilter, *, below: int | None = None, above: int | None = None, is_upwards: bool, limit: int
) -> list[int]:
    """Numbers of the entries that come next, nearest first."""
    rows = rows_of(wanted, below, above).order_by("pk" if is_upwards else "-pk").values_list("pk", flat=True)
    if not wanted.text:
        return list(rows[:limit])
    # Names that match are few. What is wanted stands among the nearest entries of each, all of them read from an index.
    found = {number for column, name in _matches(wanted.text) for number in rows.filter(**{column: name})[:limit]}
    return (heapq.nsmallest if is_upwards else heapq.nlargest)(limit, found)


def _matches(text: str) -> list[tuple[str, str]]:
    part = text.casefold()
    found = [(column, value) for column in _SEARCHED for value in known_values(column) if part in value.casefold()]
    return found[:MOST_MATCHES]


def _entries(numbers: list[int]) -> list[AuditEntry]:
    """Rows with their jobs, as far as those are still there. Plans and logs are long and not shown in lists."""
    jobs = Prefetch("job", SwitchJob.objects.only("pk"))
    return list(AuditEntry.objects.filter(pk__in=numbers).order_by("-pk").prefetch_related(jobs))


def _number_at(day: date | None) -> int | None:
    """The first entry of a day or after it; behind all entries when there is none."""
    if day is None:
        return None
    try:
        start = timezone.make_aware(datetime.combine(day, time.min))
    except OverflowError:
        return None
    number = AuditEntry.objects.filter(at__gte=start).order_by("at", "pk").values_list("pk", flat=True).first()
    return AuditHead.current().entry_id + 1 if number is None else number


def _clean(text: str | None) -> str:
    """What a column could hold; PostgreSQL takes no NUL."""
    return (text or "").replace("\0", "").encode(errors="replace").decode().strip()[:200]


def _day(text: str | None) -> date | None:
    try:
        day = date.fromisoformat(text or "")
    except ValueError:
        return None
    return day if date(1970, 1, 2) <= day <= date(9000, 1, 1) else None
