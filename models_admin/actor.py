"""Who acts, through what, from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
    from django.http import HttpRequest


@dataclass(frozen=True, slots=True)
class Actor:
    """The one behind an action. `via` is page, chat, rest, websocket, gateway, command or system."""

    user: User | None
    via: str
    address: str = ""

    @property
    def name(self) -> str:
        """User name, or "system" when nobody asked."""
        return self.user.get_username() if self.user else "system"

    def may(self, permission: str) -> bool:
        """Whether the actor holds a permission of this app. Commands and the system itself may do everything."""
        if self.user is None:
            return self.via in {"command", "system"}
        return self.user.is_active and self.user.has_perm(f"models_admin.{permission}")

    @classmethod
    def from_request(cls, request: HttpRequest, via: str) -> Actor:
        """The signed-in person behind a request."""
        user: AbstractBaseUser | AnonymousUser = request.user
        return cls(user if user.is_authenticated else None, via, request.META.get("REMOTE_ADDR") or "")  # type: ignore[arg-type]


SYSTEM = Actor(None, "system")
COMMAND = Actor(None, "command")
