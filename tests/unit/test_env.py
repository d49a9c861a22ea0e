"""Values from the environment: what is taken, and the one line that refuses the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gantry.env import BASE_DIR, Environment, EnvironmentInvalid, check_host_name, environment


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty environment, and no value remembered from or for other tests."""
    for name in Environment.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)
    monkeypatch.setenv("GANTRY_ENV_FILE", "")
    environment.cache_clear()
    yield
    environment.cache_clear()


def test_empty_environment_gives_defaults() -> None:
    env = environment()
    assert (env.gantry_port, env.gantry_bind, env.gantry_memory) == (8000, "127.0.0.1", "auto")
    assert env.gantry_data_dir == BASE_DIR / "var"
    assert env.redis_url is None


def test_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRY_PORT", "")
    assert environment().gantry_port == 8000
    assert "gantry_port" not in environment().model_fields_set


def test_relative_path_starts_at_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRY_MODELS_DIR", "some/models")
    assert environment().gantry_models_dir == BASE_DIR / "some" / "models"


def test_hosts_are_a_list_by_comma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRY_ALLOWED_HOSTS", "one.example, two.example,")
    assert environment().allowed_hosts[-2:] == ["one.example", "two.example"]


def test_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("GANTRY_PORT=9001\nGANTRY_HOST=box\n")
    monkeypatch.setenv("GANTRY_ENV_FILE", str(file))
    monkeypatch.setenv("GANTRY_PORT", "9002")
    assert (environment().gantry_port, environment().gantry_host) == (9002, "box")


def test_secret_is_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sesame\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(file))
    monkeypatch.setenv("SECRET_KEY", "")  # restored afterwards: reading the file sets it
    monkeypatch.delenv("SECRET_KEY")
    assert environment().secret_key == "sesame"


def test_secret_file_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY_FILE", "/nowhere/key")
    with pytest.raises(EnvironmentInvalid, match="SECRET_KEY_FILE: cannot read /nowhere/key"):
        environment()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GANTRY_PORT", "0"),
        ("GANTRY_PORT", "http"),
        ("GANTRY_MEMORY", "lots"),
        ("GANTRY_MEMORY", "fixed:eight"),
        ("GANTRY_HOST", "box one"),
        ("GANTRY_HOST", "../box"),
        ("GANTRY_LOG_LEVEL", "LOUD"),
        ("GANTRY_TIME_ZONE", "Middle-earth"),
        ("GANTRY_DEBUG", "perhaps"),
    ],
)
def test_bad_value_is_refused_in_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentInvalid) as refused:
        environment()
    text = str(refused.value)
    assert text.startswith(f"{name}: ")
    assert value in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_bad_address_is_refused_without_showing_the_password(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "mystery://ann:open-sesame@host/1")
    with pytest.raises(EnvironmentInvalid) as refused:
        environment()
    assert "open-sesame" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("value", ["auto", "ram", "nvml", "fixed:8GiB", "fixed: 1.5 GB", "FIXED:512MiB"])
def test_memory_can_be_said_in_these_ways(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("GANTRY_MEMORY", value)
    assert environment().gantry_memory == value


@pytest.mark.parametrize("name", ["a b", "", "-box", "box/1", "box\n", "x" * 64])
def test_host_name_that_cannot_name_a_queue_is_refused(name: str) -> None:
    with pytest.raises(EnvironmentInvalid):
        check_host_name(name)
