"""Keys of programs, requests of those who may not switch, how often people may switch, and chatting as a right."""

import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('models_admin', '0004_audit_chain'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='modeldefinition',
            options={'ordering': ['name', 'model_id'], 'permissions': [('chat', 'Can chat with the model that serves'), ('see_status', 'Can see which model serves, and how a switch goes'), ('switch_model', 'Can switch, unload and restart models'), ('cancel_any_job', 'Can cancel switches of others')], 'verbose_name': 'model'},
        ),
        migrations.AddField(
            model_name='switchpolicy',
            name='cool_down_most_seconds',
            field=models.FloatField(default=600.0, help_text='Seconds that the pause after failed loads grows to at most.', validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(86400)], verbose_name='longest pause'),
        ),
        migrations.AddField(
            model_name='switchpolicy',
            name='cool_down_seconds',
            field=models.FloatField(default=5.0, help_text="Seconds before the same model may be tried again, doubled with each failure. 0: no pause. Who may cancel everybody's switches can try at once, and the count begins anew.", validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(3600)], verbose_name='pause after a failed load'),
        ),
        migrations.AddField(
            model_name='switchpolicy',
            name='members_may_switch',
            field=models.BooleanField(default=False, help_text='Everybody in the group Member may switch, unload and restart models. Off: they can ask for a model.', verbose_name='members may switch'),
        ),
        migrations.AddField(
            model_name='switchpolicy',
            name='stay_seconds',
            field=models.FloatField(default=0.0, help_text='Seconds that a model serves at least before somebody may switch to another one.', validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(86400)], verbose_name='shortest stay'),
        ),
        migrations.AddField(
            model_name='switchpolicy',
            name='switches_in_all',
            field=models.PositiveSmallIntegerField(default=10, help_text='Of everybody together, people and programs. 0: no limit.', validators=[django.core.validators.MaxValueValidator(1000)], verbose_name='switches a minute, in all'),
        ),
        migrations.AddField(
            model_name='switchpolicy',
            name='switches_per_user',
            field=models.PositiveSmallIntegerField(default=3, help_text='Restarts, background loads and single calls count too. 0: no limit. A key may have a limit of its own.', validators=[django.core.validators.MaxValueValidator(1000)], verbose_name='switches a minute, each person'),
        ),
        migrations.CreateModel(
            name='ApiKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='What it is for.', max_length=100)),
                ('prefix', models.CharField(editable=False, help_text='Its readable beginning.', max_length=20, unique=True)),
                ('secret_hash', models.CharField(editable=False, help_text='SHA-256 of the secret, in hex.', max_length=64)),
                ('scopes', models.JSONField(default=list, help_text='Values of Scope.')),
                ('model_ids', models.JSONField(blank=True, default=list, help_text='Ids of the models it may be used for. Empty: all.', verbose_name='models')),
                ('switches_per_minute', models.PositiveSmallIntegerField(blank=True, help_text='Instead of the limit for its user. Empty: they share that one. 0: no limit.', null=True, validators=[django.core.validators.MaxValueValidator(1000)], verbose_name='switches a minute')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField(blank=True, help_text='Empty: never.', null=True)),
                ('last_used_at', models.DateTimeField(editable=False, help_text='Exact to a minute.', null=True)),
                ('revoked_at', models.DateTimeField(editable=False, null=True)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='api_keys', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name': 'API key',
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='SwitchRequest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('reason', models.CharField(blank=True, max_length=300)),
                ('state', models.CharField(choices=[('open', 'Open'), ('approved', 'Approved'), ('declined', 'Declined'), ('withdrawn', 'Withdrawn'), ('expired', 'Not answered')], default='open', max_length=20)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('answered_at', models.DateTimeField(null=True)),
                ('answered_by_name', models.CharField(blank=True, max_length=150)),
                ('answer', models.CharField(blank=True, help_text='A word to the one who asked.', max_length=300)),
                ('job', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='models_admin.switchjob')),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='switch_requests', to='models_admin.modeldefinition')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='switch_requests', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(condition=models.Q(('state', 'open')), fields=['-id'], name='open_switch_requests')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state', 'open')), fields=('user', 'model'), name='one_open_request_per_person_and_model')],
            },
        ),
    ]
