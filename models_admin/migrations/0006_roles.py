"""The roles Administrator, Operator and Member; everybody who is there becomes a Member, which leaves them what they could do."""

from django.contrib.auth.management import create_permissions
from django.db import migrations

# The same makes the roles again after `flush`: one function for both. It passes over rights that are not there yet.
from models_admin import roles


def make_roles(apps, schema_editor):
    """The rights first: Django makes those of new models only after all migrations."""
    using = schema_editor.connection.alias
    app_config = apps.get_app_config("models_admin")
    app_config.models_module = True  # what stands for the app here has none, and create_permissions would pass over it
    create_permissions(app_config, verbosity=0, interactive=False, using=using, apps=apps)
    app_config.models_module = None
    roles.make_roles(apps, using)
    roles.make_everybody_members(apps, using)


class Migration(migrations.Migration):
    dependencies = [
        ("models_admin", "0005_keys_roles_and_limits"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(make_roles, migrations.RunPython.noop)]
