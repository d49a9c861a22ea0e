"""Moving old audit entries to a file that can be checked by itself, with a signed anchor in their place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from django.db import connection, transaction

from models_admin import audit, audit_triggers
from models_admin.actor import Actor
from models_admin.audit_chain import Break, ChainReport, Values, Walk, entries_after
from models_admin.audit_hash import canonical, is_signed, sign
from models_admin.models import AuditAnchor, AuditEntry, AuditHead


class ChainBroken(Exception):
    """Entries that are not as they were written are not archived: the file would prove nothing. `fault` names the first."""

    def __init__(self, fault: Break) -> None:
        super().__init__(fault.text)
        self.fault = fault


def archive(before: datetime, path: Path, *, actor: Actor) -> AuditAnchor | None:
    """Move the entries that were written before a moment to a new file. None when there is none.

    The file is complete and on the disk before a row is deleted; when anything fails there is no file and no row is gone.

    Raises:
        ChainBroken: one of them is not as it was written.
        FileExistsError: the file is there already. OSError: it cannot be written.
    """
    last = _last_before(before)
    start = AuditAnchor.objects.first()
    if last <= (start.entry_id if start else 0):
        return None
    with _new_file(path) as file:
        anchor = _write(file, start, last, path.name)
        with transaction.atomic():
            head = AuditHead.locked()  # before the table is locked, as everybody does who adds an entry
            _move(head, anchor)
            audit.write(
                audit.AuditEvent.AUDIT_ARCHIVE,
                actor=actor,
                object_text=path.name,
                after={"entries": anchor.count, "last": anchor.entry_id, "hash": anchor.hash},
                outcome="succeeded",
            )
    return anchor


def check_file(path: Path) -> ChainReport:
    """Look through an archive file, by itself: each entry, and the anchor at its end.

    Raises:
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        reader = _FileReader(file)
        first = next(reader.entries(), None)
        walk = Walk(first["id"] - 1, first["previous_hash"]) if first else Walk()
        for _row in walk.over(reader.entries_again(first)):
            pass
    broken = walk.broken or reader.break_at_end(walk)
    return ChainReport(walk.count, walk.first_id, walk.last_id, walk.last_hash, broken)


class _FileReader:
    """Reads entries up to the anchor, and the hash of the lines as it goes."""

    def __init__(self, file: Iterable[str]) -> None:
        self.anchor: dict[str, Any] | None = None
        self.file_hash = ""
        self._digest, self._lines = hashlib.sha256(), iter(file)

    def entries(self) -> Iterator[Values]:
        for line in self._lines:
            values = json.loads(line)
            if "anchor" in values:
                self.anchor, self.file_hash = values, self._digest.hexdigest()
                return
            self._digest.update(line.encode())
            yield values

    def entries_again(self, first: Values | None) -> Iterator[Values]:
        """From the first on, which was read already."""
        if first is not None:
            yield first
        yield from self.entries()

    def break_at_end(self, walk: Walk) -> Break | None:
        if self.anchor is None:
            return Break(walk.last_id + 1, f"the file ends after entry {walk.last_id}, without its anchor")
        signature = str(self.anchor.pop("signature", ""))
        if not is_signed(self.anchor, signature):
            return Break(None, "the anchor at the end of the file was changed, or SECRET_KEY was")
        kept = (self.anchor["anchor"], self.anchor["hash"], self.anchor["count"], self.anchor["file_hash"])
        if kept != (walk.last_id, walk.last_hash, walk.count, self.file_hash):
            return Break(None, "the file does not hold what its anchor stands for")
        return None


def _last_before(moment: datetime) -> int:
    """Number of the last entry before the first that is not older: a file holds an unbroken piece of the chain."""
    first_kept = AuditEntry.objects.filter(at__gte=moment).order_by("pk").values_list("pk", flat=True).first()
    return AuditHead.current().entry_id if first_kept is None else first_kept - 1


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A file that only its owner reads, and that is gone again when what follows fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write(file: TextIO, start: AuditAnchor | None, last: int, name: str) -> AuditAnchor:
    """Write entries and anchor, down to the disk."""
    walk, digest = Walk(start.entry_id, start.hash) if start else Walk(), hashlib.sha256()
    for values in walk.over(_up_to(last, entries_after(walk.last_id))):
        line = canonical(values) + "\n"
        digest.update(line.encode())
        file.write(line)
    if walk.broken:
        raise ChainBroken(walk.broken)
    anchor = AuditAnchor(
        entry_id=walk.last_id, hash=walk.last_hash, count=walk.count, file_name=name[:255], file_hash=digest.hexdigest()
    )
    anchor.signature = sign(anchor.signed_values())
    file.write(canonical({**anchor.signed_values(), "signature": anchor.signature}) + "\n")
    file.flush()
    os.fsync(file.fileno())
    return anchor


def _up_to(last: int, entries: Iterator[Values]) -> Iterator[Values]:
    for values in entries:
        if values["id"] > last:
            return
        yield values


def _move(head: AuditHead, anchor: AuditAnchor) -> None:
    """Put the anchor in the place of its entries. Inside a transaction that holds the head."""
    is_genuine = head.is_genuine
    with audit_triggers.lifted(connection):
        anchor.save(force_insert=True)
        gone = AuditEntry.objects.filter(pk__lte=anchor.entry_id)
        gone._raw_delete(gone.db)  # noqa: SLF001 - one statement; there is nothing that hangs on an entry
    head.count -= anchor.count
    head.keep(is_genuine=is_genuine)
