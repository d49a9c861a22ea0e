"""Whether a model that crashed was the active one, and until when: that one is restarted."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("models_admin", "0008_idempotency")]

    operations = [
        migrations.AddField(
            model_name="modelinstance",
            name="served_until",
            field=models.DateTimeField(help_text="When it crashed, if it was the active one.", null=True),
        ),
    ]
