"""Settings of the test suite: the real ones, with a data folder of its own and everything in memory that may be."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ["GANTRY_DATA_DIR"] = tempfile.mkdtemp(prefix="gantry-test-")
atexit.register(shutil.rmtree, os.environ["GANTRY_DATA_DIR"], ignore_errors=True)
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
LIMITS_URL = ""  # the tests of limits set it

# A file, as in production: an in-memory database knows no WAL, and threads that share it meet locks that never were.
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}  # noqa: F405
