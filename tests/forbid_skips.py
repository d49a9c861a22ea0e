"""Fails the run when a test was skipped and GANTRY_FORBID_SKIPS=1, naming each: where everything is installed, a skip hides a hole."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

_skipped: list[str] = []


def _is_forbidden() -> bool:
    return os.environ.get("GANTRY_FORBID_SKIPS") == "1"


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _skipped.append(f"{report.nodeid}: {reason}")


def pytest_configure() -> None:
    """Forget an earlier run in the same process."""
    _skipped.clear()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a test that skipped itself."""
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a module that skipped itself."""
    _note(report)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Turn a green run into a failed one; before the closing lines are written."""
    if _is_forbidden() and _skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each skip."""
    if _is_forbidden() and _skipped:
        terminalreporter.section("skipped, which is forbidden here")
        for line in _skipped:
            terminalreporter.line(line)
