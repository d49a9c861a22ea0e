"""The web server's entry: HTTP to Django, WebSockets to the consumers."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gantry.settings")
_django = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402 - Django has to be set up first

from gantry.api.quick_status import QuickStatus  # noqa: E402
from gantry.api.ws_door import SocketDoor  # noqa: E402
from gantry.open_database import close_with_requests, hold_open  # noqa: E402
from gantry.routing import websocket_urlpatterns  # noqa: E402

hold_open()
close_with_requests()

application = ProtocolTypeRouter(
    {
        "http": QuickStatus(_django),
        "websocket": SocketDoor(URLRouter(websocket_urlpatterns)),
    }
)
