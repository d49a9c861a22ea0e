"""Who may ask what: TabbyAPI's two keys and the headers that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fakes.tabby.wire import refusal, server_fault


@dataclass
class Keys:
    """The keys in force; change them at any time."""

    api_keys: list[str] = field(default_factory=lambda: ["api-key-0123456789abcdef"])
    admin_key: str = "admin-key-0123456789abcdef"
    is_open: bool = False  # `disable_auth`: everybody is an administrator

    def check_api(self, headers: Mapping[str, str]) -> None:
        """Let a request through to what everybody with a key may use; the first of the two headers decides."""
        key = headers.get("x-api-key", _bearer(headers))
        if self.is_open:
            return
        if key is None:
            raise refusal(401, "Please provide an API key")
        if not self._role(key):
            raise refusal(401, "Invalid API key")

    def check_admin(self, headers: Mapping[str, str]) -> None:
        """Let a request through to loading and unloading."""
        key = headers.get("x-admin-key", _bearer(headers))
        if self.is_open:
            return
        if key is None:
            raise refusal(401, "Please provide an admin key")
        if key != self.admin_key:
            raise refusal(401, "Invalid admin key")

    def is_admin(self, headers: Mapping[str, str]) -> bool:
        """As whom lists and inline loading see somebody who was let through: a wrong admin key is a fault of the server."""
        role = self.permission(headers)
        if not role:
            raise server_fault()
        return role == "admin"

    def permission(self, headers: Mapping[str, str]) -> str:
        """`api`, `admin` or nothing, from the first header of the three that is there."""
        if self.is_open:
            return "admin"
        return self._role(headers.get("x-admin-key") or headers.get("x-api-key") or _bearer(headers) or "")

    def _role(self, key: str) -> str:
        if key == self.admin_key:
            return "admin"
        return "api" if key in self.api_keys else ""


def _bearer(headers: Mapping[str, str]) -> str | None:
    """The key in Authorization; one without "Bearer" is no key that anybody has."""
    value = headers.get("authorization")
    if value is None:
        return None
    word, _, key = value.partition(" ")
    return key.strip() if word.lower() == "bearer" else ""
