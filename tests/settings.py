"""Settings of the test suite: the real ones, with a data folder of its own and everything in memory that may be."""

from __future__ import annotations

import os
import tempfile

os.environ["GANTRY_DATA_DIR"] = os.environ.get("GANTRY_TEST_DATA_DIR") or tempfile.mkdtemp(prefix="gantry-test-")
for _name in ("GANTRY_MEMORY", "GANTRY_MODELS_DIR", "GANTRY_LLAMA_SERVER", "REDIS_URL", "GANTRY_HOST", "SECRET_KEY"):
    os.environ.pop(_name, None)
os.environ["GANTRY_MEMORY"] = "fixed:1GiB"
os.environ["GANTRY_ENV_FILE"] = ""  # nobody's own .env decides what the tests see

from gantry.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
CELERY_BROKER_URL = "memory://"
AXES_ENABLED = False
