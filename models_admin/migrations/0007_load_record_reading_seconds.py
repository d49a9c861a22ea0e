"""How long the reading took of each load: what comes after it is foretold from that."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("models_admin", "0006_roles")]

    operations = [
        migrations.AddField(
            model_name="loadrecord",
            name="reading_seconds",
            field=models.FloatField(
                help_text="Of the load, until all was read; empty where the runtime tells no bytes.", null=True
            ),
        ),
    ]
