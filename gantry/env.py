"""Every setting that comes from the environment, typed and checked once.

A `.env` file beside manage.py is read too; the real environment wins. A secret may also be given as a file
whose path stands in `NAME_FILE`. A value that cannot be used ends the program with one line that names it.
"""

from __future__ import annotations

import os
import re
import socket
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

BASE_DIR = Path(__file__).resolve().parent.parent
_MEMORY = re.compile(r"^(auto|ram|nvml|fixed:\s*\d+(\.\d+)?\s*([KMGT]i?)?B?)$", re.IGNORECASE)
_SECRETS = ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "DJANGO_SUPERUSER_PASSWORD")


class EnvironmentInvalid(Exception):
    """A variable has a value that cannot be used; the text says which and what is allowed."""


class Environment(BaseSettings):
    """What an operator can set. Field names are the variable names in lower case."""

    model_config = SettingsConfigDict(env_file=BASE_DIR / ".env", extra="ignore", env_ignore_empty=True)

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
    database_url: str | None = None
    redis_url: str | None = None
    secret_key: str | None = None

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
            raise ValueError("use auto, ram, nvml, or a fixed amount such as fixed:8GiB")
        return value.strip()

    @property
    def allowed_hosts(self) -> list[str]:
        """Host names that the web server answers to."""
        return ["localhost", "127.0.0.1", "[::1]", socket.gethostname(), *self.gantry_allowed_hosts]


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
        return Environment()
    except ValidationError as exc:
        first = exc.errors()[0]
        name = "_".join(str(part) for part in first["loc"][:1]).upper()
        raise EnvironmentInvalid(f"{name}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r})") from exc
