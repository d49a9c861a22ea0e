"""Who acts, through what, from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
    from django.http import HttpRequest

    from models_admin.models import ApiKey, ModelDefinition


@dataclass(frozen=True, slots=True)
class Actor:
    """The one behind an action. `via` is page, chat, rest, websocket, gateway, command or system.

    With a `key`, the key of a program that acts for its user: it may do what the user may and its scopes allow, both.
    """

    user: User | None
    via: str
    address: str = ""
    key: ApiKey | None = None

    @property
    def name(self) -> str:
        """User name, or "system" when nobody asked."""
        return self.user.get_username() if self.user else "system"

    def may(self, permission: str) -> bool:
        """Whether the actor holds a permission of this app. Commands and the system itself may do everything."""
        if self.user is None:
            return self.via in {"command", "system"}
        if self.key is not None and not self.key.allows(permission):
            return False
        return self.user.is_active and self.user.has_perm(f"models_admin.{permission}")

    @property
    def may_see_status(self) -> bool:
        """Which model serves and how a switch goes: everybody with a role, and whoever may see definitions."""
        return self.may("see_status") or self.may("view_modeldefinition")

    def has_scope(self, scope: str) -> bool:
        """Whether a key reaches so far (models.api_key.Scope); a person without a key is not narrowed by any."""
        return self.key is None or self.key.has_scope(scope)

    def may_use(self, model: ModelDefinition) -> bool:
        """Whether a key may be used for this model. Says nothing of rights."""
        return self.key is None or not self.key.model_ids or model.model_id in self.key.model_ids

    @classmethod
    def from_request(cls, request: HttpRequest, via: str) -> Actor:
        """The signed-in person behind a request."""
        user: AbstractBaseUser | AnonymousUser = request.user
        return cls(user if user.is_authenticated else None, via, request.META.get("REMOTE_ADDR") or "")  # type: ignore[arg-type]


SYSTEM = Actor(None, "system")
COMMAND = Actor(None, "command")
