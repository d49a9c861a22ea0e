"""An application for the real web server in tests, behind the door of Gantry's sockets: says how long each message was, or closes."""

from __future__ import annotations

from typing import Any

from django.core.asgi import get_asgi_application

get_asgi_application()  # sets Django up

from gantry.api.ws_door import SocketDoor  # noqa: E402 - Django has to be set up first


async def say_lengths(scope: Any, receive: Any, send: Any) -> None:
    """Serve one connection."""
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["text"].startswith("close "):
            await send({"type": "websocket.close", "code": int(message["text"].split()[1])})
        else:
            await send({"type": "websocket.send", "text": f'{{"length": {len(message["text"])}}}'})


application = SocketDoor(say_lengths)
