"""How many models a server holds at most, as it tells by itself: switches are planned by that."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("models_admin", "0009_instance_served_until")]

    operations = [
        migrations.AddField(
            model_name="runtime",
            name="max_models",
            field=models.PositiveIntegerField(
                editable=False,
                help_text="So many at once at the most, as the server told last. Empty: no limit.",
                null=True,
            ),
        ),
    ]
