"""Audit entries become a chain: each is sealed with the hash of the one before, and the database refuses to change them."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import connections, migrations, models

from models_admin import audit_triggers

# The seal is the same for entries that are chained here and for later ones, or the chain would not verify: one function for both.
from models_admin.audit_hash import GENESIS, moment_text, plain, seal, sign

BATCH = 500


def chain_what_is_there(apps, schema_editor):
    """Seal the entries in the order of their numbers, and note where the chain ends."""
    alias = schema_editor.connection.alias
    entries = apps.get_model("models_admin", "AuditEntry").objects.using(alias)
    last_id, last_hash, count = 0, GENESIS, 0
    while batch := list(entries.filter(pk__gt=last_id).order_by("pk")[:BATCH]):
        for entry in batch:
            entry.previous_hash = last_hash
            entry.hash = last_hash = seal(_values(entry))
        entries.bulk_update(batch, ["previous_hash", "hash"])
        last_id, count = batch[-1].pk, count + len(batch)
    signature = sign({"head": last_id, "hash": last_hash, "count": count})
    apps.get_model("models_admin", "AuditHead").objects.using(alias).create(
        pk=1, entry_id=last_id, hash=last_hash, count=count, signature=signature
    )


def _values(entry):
    return {
        "id": entry.pk,
        "at": moment_text(entry.at),
        "actor_id": entry.actor_id,
        "actor_name": entry.actor_name,
        "via": entry.via,
        "address": entry.address,
        "event": entry.event,
        "object_text": entry.object_text,
        "job_id": entry.job_id,
        "before": plain(entry.before),
        "after": plain(entry.after),
        "outcome": entry.outcome,
        "previous_hash": entry.previous_hash,
    }


def create_triggers(apps, schema_editor):
    """From here on entries are only added."""
    audit_triggers.create(connections[schema_editor.connection.alias])


def drop_triggers(apps, schema_editor):
    """Before the tables are taken back."""
    audit_triggers.drop(connections[schema_editor.connection.alias])


class Migration(migrations.Migration):
    dependencies = [
        ("models_admin", "0003_policy_and_ledgers"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditAnchor",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                ("entry_id", models.BigIntegerField(help_text="Number of the last archived entry.", unique=True)),
                ("hash", models.CharField(max_length=64)),
                ("count", models.BigIntegerField(help_text="Entries in the file.")),
                ("file_name", models.CharField(max_length=255)),
                (
                    "file_hash",
                    models.CharField(
                        help_text="SHA-256 of the file's lines but the last, which is this anchor.", max_length=64
                    ),
                ),
                ("signature", models.CharField(max_length=200)),
            ],
            options={"ordering": ["-entry_id"]},
        ),
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("entry_id", models.BigIntegerField(default=0, help_text="Number of the last entry.")),
                ("hash", models.CharField(default="0" * 64, max_length=64)),
                ("count", models.BigIntegerField(default=0, help_text="Entries that are not archived.")),
                ("signature", models.CharField(blank=True, max_length=200)),
                ("verified_at", models.DateTimeField(null=True)),
                ("verified_count", models.BigIntegerField(default=0)),
                (
                    "broken_entry_id",
                    models.BigIntegerField(help_text="The first broken entry that the last look found.", null=True),
                ),
                ("broken_text", models.CharField(blank=True, max_length=300)),
            ],
        ),
        migrations.AlterField(
            model_name="auditentry",
            name="actor",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name="auditentry",
            name="job",
            field=models.ForeignKey(
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="audit_entries",
                to="models_admin.switchjob",
            ),
        ),
        migrations.AlterField(
            model_name="auditentry",
            name="at",
            field=models.DateTimeField(default=django.utils.timezone.now, editable=False),
        ),
        migrations.AddField(
            model_name="auditentry",
            name="previous_hash",
            field=models.CharField(default="", editable=False, max_length=64),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="auditentry",
            name="hash",
            field=models.CharField(default="", editable=False, max_length=64),
            preserve_default=False,
        ),
        migrations.RunPython(chain_what_is_there, migrations.RunPython.noop),
        migrations.AddIndex("auditentry", models.Index(fields=["actor_name", "id"], name="audit_by_actor")),
        migrations.AddIndex("auditentry", models.Index(fields=["event", "id"], name="audit_by_event")),
        migrations.AddIndex("auditentry", models.Index(fields=["object_text", "id"], name="audit_by_object")),
        migrations.AddIndex("auditentry", models.Index(fields=["outcome", "id"], name="audit_by_outcome")),
        migrations.AddIndex("auditentry", models.Index(fields=["address", "id"], name="audit_by_address")),
        migrations.AddIndex("auditentry", models.Index(fields=["at", "id"], name="audit_by_moment")),
        migrations.RunPython(create_triggers, drop_triggers),
    ]
