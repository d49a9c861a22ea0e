"""Who opens a socket: a program by its key, or somebody signed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import AnonymousUser, User
from django.utils.crypto import constant_time_compare

from gantry.api.ws_daphne import close_with_any_code, say_what_is_too_large
from gantry.api.ws_origin import is_trusted
from models_admin import keys
from models_admin.actor import Actor
from models_admin.exceptions import KeyRefused
from models_admin.job_requests import need_status

VIA = "websocket"
AUTHORIZATION = "authorization"  # in the scope of a connection that came with that header
SERVER_SEND = "server_send"  # in the scope of every connection

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
_HINT = "Send “Authorization: Bearer gty_…” with a key from the page API keys, or sign in."


class SocketDoor:
    """ASGI middleware: reads the session's cookie and asks for the origin, unless the connection can use nobody's cookie.

    A page of another site can make a browser send cookies, but neither leave them out nor send an Authorization header. So with that
    header, cookies are not looked at; and with neither, there is nothing to misuse, and the consumer turns the stranger away in words.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._with_session = AuthMiddlewareStack(application)
        self._refuse = WebsocketDenier.as_asgi()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Let the application see `user`, `authorization` where there is one, and `send` itself: what wraps it hides the server."""
        say_what_is_too_large(send)
        close_with_any_code(send)
        headers = dict(scope["headers"])
        scope = {**scope, SERVER_SEND: send}
        if b"authorization" not in headers and b"cookie" in headers:
            await (self._with_session if is_trusted(scope) else self._refuse)(scope, receive, send)
            return
        scope = {**scope, "user": AnonymousUser()}
        if b"authorization" in headers:
            scope[AUTHORIZATION] = headers[b"authorization"].decode("latin-1")
        await self._application(scope, receive, send)


def let_in(scope: dict[str, Any]) -> Actor:
    """The actor behind a new connection, who may see models. Up to five queries.

    Raises:
        KeyRefused: the key cannot be used, or nobody is signed in.
        NotAllowed: may not see models.
    """
    actor = _actor(scope)
    need_status(actor)
    return actor


def look_again(scope: dict[str, Any], actor: Actor) -> Actor:
    """The same actor with the rights of this moment. Up to five queries.

    Raises:
        KeyRefused: the key, the session or the account cannot be used any more.
        NotAllowed: may not see models any more.
    """
    actor = keys.recheck(actor)
    if actor.key is None and actor.user is not None and not _is_still_signed_in(scope, actor.user):
        raise KeyRefused("You are not signed in any more.", "Sign in again.")
    need_status(actor)
    return actor


def _actor(scope: dict[str, Any]) -> Actor:
    address = (scope.get("client") or ("",))[0]
    if AUTHORIZATION in scope:
        token = keys.bearer_token(scope[AUTHORIZATION])
        if token is None:
            raise KeyRefused("Only the kind Bearer is understood.", "Send “Authorization: Bearer gty_…”.")
        return keys.authenticate(token, via=VIA, address=address)
    user = scope["user"]
    if not user.is_authenticated:
        raise KeyRefused("Nobody is signed in, and no key was sent.", _HINT)
    return keys.recheck(Actor(user, VIA, address))


def _is_still_signed_in(scope: dict[str, Any], user: User) -> bool:
    """The session has not ended, and the password is the one with which it began."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    session = store(scope["session"].session_key)
    is_the_same = session.get(SESSION_KEY) == str(user.pk)
    return is_the_same and constant_time_compare(session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash())
