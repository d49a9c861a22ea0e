"""Which hints are still worth sending when several wait."""

from __future__ import annotations

from typing import Any

from gantry.live import without_outdated


def job(pk: int, percent: int) -> dict[str, Any]:
    return {"type": "job_updated", "job": {"id": pk, "percent": percent, "is_finished": False}}


def models(*model_ids: str) -> dict[str, Any]:
    return {"type": "models_changed", "model_ids": list(model_ids), "event_id": "-".join(model_ids)}


def left(*messages: dict[str, Any], group: str = "status") -> list[dict[str, Any]]:
    return [dict(message) for _, message in without_outdated([(group, message) for message in messages])]


def test_of_each_job_the_latest() -> None:
    assert left(job(1, 10), job(2, 5), job(1, 20), job(1, 30)) == [job(1, 30), job(2, 5)]


def test_models_that_changed_are_told_together() -> None:
    [told] = left(models("b"), models("a", "b"))
    assert told["model_ids"] == ["a", "b"]
    assert told["event_id"] == "a-b"  # the latest: what is rendered for it shows all of them


def test_no_names_means_all_models_whatever_else_is_named() -> None:
    for messages in ([models(), models("a")], [models("a"), models()]):
        [told] = left(*messages)
        assert told["model_ids"] == []


def test_jobs_come_before_what_is_read_again_anyway() -> None:
    memory = {"type": "memory_changed", "event_id": "m"}
    assert left(models("a"), memory, job(1, 100)) == [job(1, 100), models("a"), memory]


def test_what_says_something_of_its_own_is_all_sent_in_order() -> None:
    messages = [{"type": "message_updated", "message_id": 3, "state": state} for state in ("waiting", "done")]
    assert left(*messages) == messages


def test_groups_are_told_apart() -> None:
    hints = [("status", job(1, 10)), ("requests", job(1, 20))]
    assert without_outdated(hints) == hints
