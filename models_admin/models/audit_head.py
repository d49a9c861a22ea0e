"""Where the chain of audit entries ends, and where it begins once old ones were archived."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import models
from django.utils import timezone
from typing_extensions import override

from models_admin.audit_hash import GENESIS, is_signed, moment_text, sign

ONLY_ROW = 1


class AuditHead(models.Model):
    """The last link of the chain, one row. Whoever adds an entry holds its lock, so that the chain never forks.

    Its signature is kept up only from one that is right: who shortens or rewrites the chain by SQL is found out also after the next
    entry. `sign_anew` heals it, after a look at the chain.
    """

    entry_id = models.BigIntegerField(default=0, help_text="Number of the last entry.")
    hash = models.CharField(max_length=64, default=GENESIS)
    count = models.BigIntegerField(default=0, help_text="Entries that are not archived.")
    signature = models.CharField(max_length=200, blank=True)
    verified_at = models.DateTimeField(null=True)
    verified_count = models.BigIntegerField(default=0)
    broken_entry_id = models.BigIntegerField(null=True, help_text="The first broken entry that the last look found.")
    broken_text = models.CharField(max_length=300, blank=True)

    @override
    def __str__(self) -> str:
        """Where the chain ends."""
        return f"audit entry {self.entry_id}"

    @classmethod
    def locked(cls) -> AuditHead:
        """The row, locked until the transaction ends. Inside a transaction.

        PostgreSQL locks the row; on SQLite the transaction has been the only writer since it began (transaction_mode IMMEDIATE), and
        the number that comes next is a primary key, so a second one with the same could not be stored on any database.
        """
        head = cls.objects.select_for_update().filter(pk=ONLY_ROW).first()
        return head or cls.objects.select_for_update().get_or_create(pk=ONLY_ROW, defaults=_at_start())[0]

    @classmethod
    def current(cls) -> AuditHead:
        """The row as it is now; of an empty chain before there is one. Not stored by this."""
        return cls.objects.filter(pk=ONLY_ROW).first() or cls(pk=ONLY_ROW, **_at_start())

    @property
    def is_genuine(self) -> bool:
        """Its signature is right."""
        return is_signed(self._signed_values(), self.signature)

    def move_to(self, entry_id: int, entry_hash: str) -> None:
        """The chain has grown by this entry."""
        is_genuine = self.is_genuine
        self.entry_id, self.hash, self.count = entry_id, entry_hash, self.count + 1
        self.keep(is_genuine=is_genuine)

    def keep(self, *, is_genuine: bool) -> None:
        """Store where the chain ends; signed only when that was so before."""
        self.signature = sign(self._signed_values()) if is_genuine else ""
        self.save(update_fields=["entry_id", "hash", "count", "signature"])

    def _signed_values(self) -> dict[str, Any]:
        return {"head": self.entry_id, "hash": self.hash, "count": self.count}


class AuditAnchor(models.Model):
    """Stands for entries that were moved to a file: the chain goes on behind the hash of the last of them. Never changed."""

    at = models.DateTimeField(default=timezone.now)
    entry_id = models.BigIntegerField(unique=True, help_text="Number of the last archived entry.")
    hash = models.CharField(max_length=64)
    count = models.BigIntegerField(help_text="Entries in the file.")
    file_name = models.CharField(max_length=255)
    file_hash = models.CharField(
        max_length=64, help_text="SHA-256 of the file's lines but the last, which is this anchor."
    )
    signature = models.CharField(max_length=200)

    class Meta:
        ordering = ["-entry_id"]

    @override
    def __str__(self) -> str:
        """What it stands for."""
        return f"{self.count} audit entries up to {self.entry_id} in {self.file_name}"

    @property
    def is_genuine(self) -> bool:
        """Its signature is right."""
        return is_signed(self.signed_values(), self.signature)

    def signed_values(self) -> dict[str, Any]:
        """What its signature covers."""
        return {
            "anchor": self.entry_id,
            "hash": self.hash,
            "count": self.count,
            "at": moment_text(self.at),
            "file_name": self.file_name,
            "file_hash": self.file_hash,
        }


def _at_start() -> dict[str, Any]:
    """The head of an empty chain, signed. Where entries or anchors are and their head is gone: behind the last one, not signed."""
    entries = apps.get_model("models_admin", "AuditEntry").objects  # its module imports this one
    anchor = AuditAnchor.objects.first()
    last = entries.order_by("-pk").values_list("pk", "hash").first()
    if last is None and anchor is None:
        return {"signature": sign({"head": 0, "hash": GENESIS, "count": 0})}
    entry_id, entry_hash = last or (anchor.entry_id, anchor.hash)  # type: ignore[union-attr]
    return {"entry_id": entry_id, "hash": entry_hash, "count": entries.count()}
