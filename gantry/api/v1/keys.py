"""Keys of programs: list, create, revoke."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest
from ninja import Query, Status

from gantry.api.idempotency import PARAMETER
from gantry.api.v1.bodies import Page, RowId
from gantry.api.v1.bodies_keys import Key, KeyIn, KeyList, NewKey, key_body
from gantry.api.v1.common import NotThere, actor_of, answers, new_router
from models_admin import keys
from models_admin.actor import Actor
from models_admin.exceptions import InvalidRequest, NotAllowed
from models_admin.models.api_key import Scope

router = new_router("Keys")


@router.get("", response=answers({200: KeyList}), operation_id="list_keys", summary="List keys")
def list_keys(request: HttpRequest, page: Query[Page]) -> dict[str, Any]:
    """Own keys, newest first; with the right to see keys, everybody's. Secrets are never shown."""
    found = keys.keys_seen_by(_manager(request)).order_by("-id")
    items = [key_body(key) for key in found[page.offset : page.offset + page.limit]]
    return {"items": items, "count": found.count()}


@router.post(
    "", response=answers({201: NewKey}), operation_id="create_key", summary="Make a key", openapi_extra=PARAMETER
)
def create(request: HttpRequest, wanted: KeyIn) -> Status[Any]:
    """Make a key for oneself, or with the right to add keys for somebody else. Its token is in this answer and nowhere else.

    A key never has more rights than its user, and makes none that reaches further than itself.
    """
    actor = _manager(request)
    key, token = keys.create_key(
        _user(wanted.user, actor), actor=actor, **wanted.model_dump(exclude={"user"}, exclude_none=True)
    )
    return Status(201, {"key": key_body(key), "token": token})


@router.delete("/{key_id}", response=answers({200: Key}), operation_id="revoke_key", summary="Revoke a key")
def revoke(request: HttpRequest, key_id: RowId) -> dict[str, Any]:
    """End a key for good; it stays in the list. Revoking it twice changes nothing."""
    actor = _manager(request)
    key = keys.keys_seen_by(actor).filter(pk=key_id).first()
    if key is None:
        raise NotThere(f"There is no key {key_id}.", "GET /api/v1/keys lists those that you may see.")
    keys.revoke_key(key, actor=actor)
    return key_body(key)


def _manager(request: HttpRequest) -> Actor:
    actor = actor_of(request)
    if not actor.has_scope(Scope.ADMIN):
        raise NotAllowed("This key may not manage keys.", "It needs the scope admin.")
    return actor


def _user(name: str | None, actor: Actor) -> User:
    if actor.user is not None and name in {None, actor.user.get_username()}:
        return actor.user
    if not actor.may("add_apikey"):
        raise NotAllowed("You may not make keys for others.", "Ask an administrator.")
    user = User.objects.filter(username=name).first()
    if user is None:
        raise InvalidRequest("The key cannot be made.", [("user", f"there is nobody called {name}")])
    return user
