"""What is written beside the code agrees with it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gantry.env import Environment

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {name.upper() for name in Environment.model_fields}


def read(name: str) -> str:
    """A file of the tree as text."""
    return (ROOT / name).read_text(encoding="utf-8")


def test_env_example_has_every_variable_and_no_other() -> None:
    assert set(re.findall(r"^([A-Z][A-Z0-9_]+)=", read(".env.example"), re.MULTILINE)) == VARIABLES


def test_env_example_shows_the_defaults() -> None:
    shown = dict(re.findall(r"^([A-Z0-9_]+)=(\S+)$", read(".env.example"), re.MULTILINE))
    assert shown["GANTRY_PORT"] == str(Environment.model_fields["gantry_port"].default)
    for name in ("GANTRY_BIND", "GANTRY_MEMORY", "GANTRY_HOST", "GANTRY_LOG_LEVEL", "GANTRY_TIME_ZONE"):
        assert shown[name] == Environment.model_fields[name.lower()].default


def test_readme_has_every_variable() -> None:
    text = read("README.md")
    assert not {name for name in VARIABLES if f"`{name}`" not in text}


def test_readme_names_no_variable_that_does_not_exist() -> None:
    assert set(re.findall(r"`(GANTRY_[A-Z_]+)`", read("README.md"))) <= VARIABLES


def test_readme_and_contributing_name_only_commands_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        assert set(re.findall(r"`make ([a-z-]+)", read(name))) <= targets


def test_pre_commit_runs_what_make_check_runs() -> None:
    [check] = re.findall(r"^check: (.+?) ##", read("Makefile"), re.MULTILINE)
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == [f"make {target}" for target in check.split()]


def test_compose_sets_only_variables_that_exist() -> None:
    services = yaml.safe_load(read("docker/compose.yml"))["services"]
    for name in ("web", "worker", "scheduler"):
        assert set(services[name]["environment"]) <= VARIABLES
