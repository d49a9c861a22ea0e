"""How switches behave: one row, edited in the admin."""

from __future__ import annotations

from typing import Any, Self

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from typing_extensions import override

from gantry.planning.eviction import EvictionStrategy
from gantry.planning.states import DrainAction

ONLY_ROW = 1


class SwitchPolicy(models.Model):
    """What may be unloaded for a switch, how running answers are treated, what is loaded by itself, how often. There is one row of it."""

    class AtStart(models.TextChoices):
        NOTHING = "nothing", "Nothing"
        LAST = "last", "The model that served last"
        DEFAULT = "default", "The default model"

    class Strategy(models.TextChoices):
        LARGEST_FIRST = EvictionStrategy.LARGEST_FIRST.value, "The largest first: as few models as possible"
        OLDEST_FIRST = EvictionStrategy.OLDEST_FIRST.value, "The one unused for longest first"
        CHEAPEST_RELOAD = EvictionStrategy.CHEAPEST_RELOAD.value, "Those that are back soonest when needed again"

    class Drain(models.TextChoices):
        CUT = DrainAction.CUT.value, "End them; what was answered so far is kept"
        WAIT = DrainAction.WAIT.value, "Wait until they have ended"
        ABORT = DrainAction.ABORT.value, "Give up the switch; nothing is unloaded"

    strategy = models.CharField(
        "what to unload",
        max_length=30,
        choices=Strategy,
        default=Strategy.LARGEST_FIRST,
        help_text="When a model needs room. Pinned models are never unloaded by a switch.",
    )
    auto_unload = models.BooleanField(
        "unload by itself",
        default=True,
        help_text="Unload other models when the chosen one does not fit beside them. Off: somebody has to unload them first.",
    )
    confirm_before_unload = models.BooleanField(
        "ask before unloading",
        default=False,
        help_text="A switch that unloads something is done only when the person has confirmed the plan.",
    )
    keep_former = models.BooleanField(
        "keep the former model loaded",
        default=True,
        help_text="Where both fit. Off: the former model is unloaded once the new one answers; nobody has to wait either way.",
    )
    drain_seconds = models.FloatField(
        "time for running answers",
        default=30.0,
        validators=[MinValueValidator(0), MaxValueValidator(86400)],
        help_text="Seconds that answers may still take before their model is unloaded.",
    )
    drain_action = models.CharField(
        "answers that run longer", max_length=10, choices=Drain, default=Drain.CUT, help_text="What is done with them."
    )
    stall_seconds = models.FloatField(
        "give up a load after",
        default=120.0,
        validators=[MinValueValidator(1), MaxValueValidator(86400)],
        help_text="Seconds without any sign of progress.",
    )
    load_seconds = models.FloatField(
        "longest load",
        default=3600.0,
        validators=[MinValueValidator(1), MaxValueValidator(604800)],
        help_text="Seconds that any load may take. SWITCH_TIMEOUT in the environment wins.",
    )
    default_model = models.ForeignKey(
        "models_admin.ModelDefinition",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Loaded when a switch has failed and what was there before cannot be put back.",
    )
    load_at_start = models.CharField(
        max_length=10, choices=AtStart, default=AtStart.NOTHING, help_text="When Gantry starts and nothing is loaded."
    )
    restart_crashed = models.BooleanField(
        "restart crashed models",
        default=False,
        help_text="Load the active model again when its process has died. One that crashes three times in five minutes is paused.",
    )
    members_may_switch = models.BooleanField(
        "members may switch",
        default=False,
        help_text="Everybody in the group Member may switch, unload and restart models. Off: they can ask for a model.",
    )
    switches_per_user = models.PositiveSmallIntegerField(
        "switches a minute, each person",
        default=3,
        validators=[MaxValueValidator(1000)],
        help_text="Restarts, background loads and single calls count too. 0: no limit. A key may have a limit of its own.",
    )
    switches_in_all = models.PositiveSmallIntegerField(
        "switches a minute, in all",
        default=10,
        validators=[MaxValueValidator(1000)],
        help_text="Of everybody together, people and programs. 0: no limit.",
    )
    stay_seconds = models.FloatField(
        "shortest stay",
        default=0.0,
        validators=[MinValueValidator(0), MaxValueValidator(86400)],
        help_text="Seconds that a model serves at least before somebody may switch to another one.",
    )
    cool_down_seconds = models.FloatField(
        "pause after a failed load",
        default=5.0,
        validators=[MinValueValidator(0), MaxValueValidator(3600)],
        help_text="Seconds before the same model may be tried again, doubled with each failure. 0: no pause. "
        "Who may cancel everybody's switches can try at once, and the count begins anew.",
    )
    cool_down_most_seconds = models.FloatField(
        "longest pause",
        default=600.0,
        validators=[MinValueValidator(0), MaxValueValidator(86400)],
        help_text="Seconds that the pause after failed loads grows to at most.",
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = verbose_name_plural = "switch policy"

    @override
    def __str__(self) -> str:
        """There is only one."""
        return "Switch policy"

    @override
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write the only row."""
        self.pk = ONLY_ROW
        super().save(*args, **kwargs)

    @classmethod
    def current(cls) -> Self:
        """The policy in force; the defaults until somebody has changed one."""
        return cls.objects.filter(pk=ONLY_ROW).first() or cls(pk=ONLY_ROW)
