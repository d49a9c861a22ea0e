"""Composition: which apps, which servers, where data lives. Values come from `gantry.env`; nothing is decided here."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dj_database_url
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy

from gantry.env import BASE_DIR, EnvironmentInvalid, environment
from gantry.secret_key import load_secret_key

env = environment()

DATA_DIR: Path = env.gantry_data_dir
try:
    DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
except OSError as exc:
    raise EnvironmentInvalid(
        f"GANTRY_DATA_DIR: cannot make {DATA_DIR} ({exc.strerror}); name a folder of yours"
    ) from exc
RUNTIME_DIR = DATA_DIR / "runtime"  # one folder for each model process
LOG_DIR = DATA_DIR / "logs"
MODELS_DIR: Path = env.gantry_models_dir or DATA_DIR / "models"
LLAMA_SERVER: Path | None = env.gantry_llama_server
SWITCH_TIMEOUT: float | None = env.switch_timeout  # seconds that any load may take; None: as the switch policy says
REFRESH_INTERVAL: float = env.refresh_interval  # seconds between two looks at what models a server offers
MEMORY = env.gantry_memory
HOST_NAME = env.gantry_host

_socket_dir = DATA_DIR / "run"
if len(str(_socket_dir)) > 80:  # a Unix socket's path may have 107 characters
    _socket_dir = Path(tempfile.gettempdir()) / f"gantry-{hashlib.sha256(str(DATA_DIR).encode()).hexdigest()[:16]}"
VALKEY_SOCKET = _socket_dir / "valkey.sock"
REDIS_IS_EMBEDDED = env.redis_url is None
REDIS_URL: str = env.redis_url or f"unix://{VALKEY_SOCKET}"

SECRET_KEY = env.secret_key or load_secret_key(DATA_DIR / "secret_key")
DEBUG = env.gantry_debug
ALLOWED_HOSTS = env.allowed_hosts
CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in env.gantry_allowed_hosts if host != "*"]

VERSION = (
    re.search(r"^## \[(\d[^\]]*)\]", (BASE_DIR / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE) or ["", "0"]
)[1]

INSTALLED_APPS = [
    "gantry",  # first: its commands stand before Django's of the same name
    "daphne",
    "unfold.apps.BasicAppConfig",
    "models_admin.admin_site.GantryAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "axes",
    "channels",
    "ninja",  # for the static files of its documentation page
    "models_admin",
    "gantry.chat",
]

MIDDLEWARE = [
    "gantry.middleware.HealthMiddleware",  # first: it answers without session, host check or database set-up
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "gantry.api.middleware.ApiMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",  # last of those that do something, as its documentation asks
    "gantry.middleware.OneThreadMiddleware",
]

ROOT_URLCONF = "gantry.urls"
ASGI_APPLICATION = "gantry.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "builtins": ["models_admin.templatetags.gantry_format"],
        },
    }
]

DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(env.database_url)
    if env.database_url
    else {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",  # a deferred transaction that turns into a write fails at once instead of waiting
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-16000;",
        },
    }
}
# Opening a connection takes longer than most queries. Whoever works in a thread that stays keeps it: the worker and the sockets.
# Threads of requests close theirs (gantry/open_database.py).
DATABASES["default"].update({"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True})
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
CHANNEL_LAYERS: dict[str, Any] = {
    "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
}

# Largest bodies of requests, in bytes. Pages take what Django takes (2.5 MB: a chat template may be long); the API takes less.
API_BODY_BYTES = 64 * 1024
API_IMPORT_BYTES = 1_000_000  # a models.yaml; one with thousands of models is far smaller

# Where switches are counted against the limits of the switch policy; empty: nowhere, and there are no limits.
LIMITS_URL: str = REDIS_URL if env.gantry_limits else ""

CELERY_DB_REUSE_MAX = 1_000_000  # tasks: gantry/celery.py looks after the connections
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://")
# A broker that hangs or is away must not hang a click: the job's row is there, and recovery sends it again.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 5.0,
    "socket_connect_timeout": 2.0,
    # Tried again once and at once; kombu's own three tries take six seconds.
    "max_retries": 1,
    "interval_start": 0.1,
    "interval_step": 0.0,
    "interval_max": 0.1,
}

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
    "models_admin.roles.MembersMaySwitch",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign_in"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "sign_in"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_VERBOSE = False
AXES_LOCKOUT_TEMPLATE = "429.html"
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

LANGUAGE_CODE = "en-us"
TIME_ZONE = CELERY_TIMEZONE = env.gantry_time_zone
USE_TZ = True
USE_I18N = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # serves from the source folders: no collectstatic step between a change and its effect


def _may_view(permission: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(permission)


UNFOLD: dict[str, Any] = {
    "COLORS": {
        "primary": {  # the blue of static/css/variables.css in unfold's shades
            "50": "oklch(97% .05 256)",
            "100": "oklch(94% .05 256)",
            "200": "oklch(89% .05 256)",
            "300": "oklch(82% .05 256)",
            "400": "oklch(71% .15 256)",
            "500": "oklch(62% .15 256)",
            "600": "oklch(49% .15 256)",
            "700": "oklch(43% .15 256)",
            "800": "oklch(37% .15 256)",
            "900": "oklch(32% .15 256)",
            "950": "oklch(24% .15 256)",
        }
    },
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("img/favicon.svg")}],
    "STYLES": [lambda request: static("css/no_script.css")],
    "SITE_TITLE": "Gantry",
    "SITE_HEADER": "Gantry",
    "SITE_SUBHEADER": "Model control tower",
    "SITE_SYMBOL": "swap_horiz",
    "SITE_URL": "/",
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {
                "title": "Models",
                "items": [
                    {
                        "title": "Models",
                        "icon": "deployed_code",
                        "link": reverse_lazy("admin:models_tab"),
                        "permission": _may_view("models_admin.view_modeldefinition"),
                    },
                    {
                        "title": "Switches",
                        "icon": "swap_horiz",
                        "link": reverse_lazy("admin:models_admin_switchjob_changelist"),
                        "permission": _may_view("models_admin.view_switchjob"),
                    },
                    {
                        "title": "Expected times",
                        "icon": "timer",
                        "link": reverse_lazy("admin:expected_times"),
                        "permission": _may_view("models_admin.view_switchjob"),
                    },
                    {
                        "title": "Runtimes",
                        "icon": "memory",
                        "link": reverse_lazy("admin:models_admin_runtime_changelist"),
                        "permission": _may_view("models_admin.view_runtime"),
                    },
                    {
                        "title": "Policy",
                        "icon": "rule_settings",
                        "link": reverse_lazy("admin:models_admin_switchpolicy_changelist"),
                        "permission": _may_view("models_admin.view_switchpolicy"),
                    },
                    {
                        "title": "Audit",
                        "icon": "fact_check",
                        "link": reverse_lazy("admin:models_admin_auditentry_changelist"),
                        "permission": _may_view("models_admin.view_auditentry"),
                    },
                    {"title": "Chat", "icon": "chat", "link": "/", "active": False},
                ],
            },
            {
                "title": "People",
                "items": [
                    {
                        "title": "Users",
                        "icon": "person",
                        "link": reverse_lazy("admin:auth_user_changelist"),
                        "permission": _may_view("auth.view_user"),
                    },
                    {
                        "title": "Groups",
                        "icon": "group",
                        "link": reverse_lazy("admin:auth_group_changelist"),
                        "permission": _may_view("auth.view_group"),
                    },
                    {"title": "API keys", "icon": "key", "link": reverse_lazy("chat:keys"), "active": False},
                ],
            },
        ],
    },
}

LOGGING_CONFIG = "gantry.logs.configure"
LOGGING = {"level": env.gantry_log_level.upper()}
