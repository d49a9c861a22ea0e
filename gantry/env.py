"""Every setting that comes from the environment, typed and checked once.

A `.env` file beside manage.py is read too (GANTRY_ENV_FILE names another one, or none when empty); the real environment wins.
A secret may also be given as a file whose path stands in `NAME_FILE`. A value that cannot be used ends the program with one
line that names it.
"""

from __future__ import annotations

import os
import re
import socket
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

import dj_database_url
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

BASE_DIR = Path(__file__).resolve().parent.parent
_AMOUNT = r"\s*\d+(\.\d+)?\s*([KMGT]i?)?B?\s*"
_MEMORY = re.compile(rf"^(auto|ram|nvml|fixed:{_AMOUNT}(\+{_AMOUNT})*)$", re.IGNORECASE)
_HOST_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")  # it becomes part of a queue's and a file's name
SUPERVISED = "GANTRY_SUPERVISED"  # `up` sets it for its processes; nobody's setting
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SECRETS = (
    "SECRET_KEY",
    "DATABASE_URL",
    "REDIS_URL",
    "DJANGO_SUPERUSER_PASSWORD",
    "TABBY_API_KEY",
    "TABBY_ADMIN_KEY",
)


class EnvironmentInvalid(ValueError):
    """A variable has a value that cannot be used; the text says which and what is allowed."""


def check_host_name(name: str) -> str:
    """`name`, when a worker may be called so.

    Raises:
        EnvironmentInvalid: it has signs that a host's name cannot have.
    """
    if not _HOST_NAME.match(name):
        raise EnvironmentInvalid("use letters, digits and . _ - only, starting with a letter or digit")
    return name


class Environment(BaseSettings):
    """What an operator can set. Field names are the variable names in lower case."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    gantry_port: int = Field(8000, ge=1, le=65535)
    gantry_bind: str = "127.0.0.1"
    gantry_allowed_hosts: Annotated[list[str], NoDecode] = []
    gantry_data_dir: Path = BASE_DIR / "var"
    gantry_memory: str = "auto"
    gantry_models_dir: Path | None = None
    gantry_llama_server: Path | None = None
    gantry_host: str = "local"
    gantry_debug: bool = False
    gantry_log_level: str = "INFO"
    gantry_time_zone: str = "UTC"
    gantry_limits: bool = True
    switch_timeout: float | None = Field(None, gt=0)
    refresh_interval: float = Field(60.0, ge=1)
    tabby_host: str | None = None
    tabby_api_key: str | None = Field(None, repr=False)
    tabby_admin_key: str | None = Field(None, repr=False)
    database_url: str | None = None
    redis_url: str | None = None
    secret_key: str | None = None
    django_superuser_username: str | None = None
    django_superuser_email: str = ""
    django_superuser_password: str | None = None

    @field_validator("gantry_data_dir", "gantry_models_dir", "gantry_llama_server")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else (BASE_DIR / value.expanduser()).resolve()

    @field_validator("gantry_allowed_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: Any) -> Any:
        return [host.strip() for host in value.split(",") if host.strip()] if isinstance(value, str) else value

    @field_validator("gantry_memory")
    @classmethod
    def _memory(cls, value: str) -> str:
        if not _MEMORY.match(value.strip()):
            raise ValueError(
                "use auto, ram, nvml, a fixed amount such as fixed:8GiB, or one for each device: fixed:8GiB+8GiB"
            )
        return value.strip()

    @field_validator("gantry_host")
    @classmethod
    def _host(cls, value: str) -> str:
        return check_host_name(value)

    @field_validator("gantry_log_level")
    @classmethod
    def _log_level(cls, value: str) -> str:
        if value.upper() not in _LOG_LEVELS:
            raise ValueError(f"use one of {', '.join(_LOG_LEVELS)}")
        return value.upper()

    @field_validator("gantry_time_zone")
    @classmethod
    def _time_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("use a name of the time zone database, such as Europe/Berlin")
        return value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str | None) -> str | None:
        try:
            dj_database_url.parse(value or "sqlite://")
        except ValueError:
            raise ValueError("use an address such as postgres://user:password@host:5432/name") from None
        return value

    @field_validator("tabby_host")
    @classmethod
    def _tabby(cls, value: str | None) -> str | None:
        url = (value or "").strip().rstrip("/")
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if url and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.query):
            raise ValueError("use an address such as http://127.0.0.1:5000")
        return parts.geturl() if url else None

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        if value and urlsplit(value).scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("use an address such as redis://host:6379/0")
        return value

    @property
    def allowed_hosts(self) -> list[str]:
        """Host names that the web server answers to."""
        return ["localhost", "127.0.0.1", "[::1]", socket.gethostname(), *self.gantry_allowed_hosts]


def is_supervised() -> bool:
    """Whether `up` runs this process, and starts it again when it ends."""
    return bool(os.environ.get(SUPERVISED))


def _read_secret_files() -> None:
    for name in _SECRETS:
        path = os.environ.get(f"{name}_FILE")
        if path and name not in os.environ:
            try:
                os.environ[name] = Path(path).read_text(encoding="utf-8").strip()
            except OSError as exc:
                raise EnvironmentInvalid(f"{name}_FILE: cannot read {path}: {exc.strerror}") from exc


@cache
def environment() -> Environment:
    """The environment of this process, read once.

    Raises:
        EnvironmentInvalid: a variable has a value that cannot be used.
    """
    _read_secret_files()
    try:
        return Environment(_env_file=os.environ.get("GANTRY_ENV_FILE", BASE_DIR / ".env") or None)
    except ValidationError as exc:
        raise EnvironmentInvalid(_sentence(exc)) from None  # the cause would quote a secret


def _sentence(exc: ValidationError) -> str:
    first = exc.errors(include_url=False)[0]
    name = "_".join(str(part) for part in first["loc"][:1]).upper()
    got = "" if name in _SECRETS else f" (got {first['input']!r})"
    return f"{name}: {first['msg'].removeprefix('Value error, ')}{got}"
