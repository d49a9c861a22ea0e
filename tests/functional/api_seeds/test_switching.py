"""Switch, restart and unload in the words of each document, with real loads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.functional.api_seeds.world import GPT, HELD, LLAMA, QWEN, WAIT_SECONDS, World
from tests.functional.stack import wait_until

pytestmark = pytest.mark.llama


def serving(gantry: World) -> str | None:
    """Id of the model that answers, as everybody is told."""
    told = gantry.get("/api/llm-status").json()["current_model"]
    return str(told) if told else None


def test_control_panel_switches_and_is_answered_when_it_is_done(gantry: World) -> None:
    answer = gantry.post("/api/llm-switch", {"model_id": QWEN})
    assert answer.status_code == 200
    told = answer.json()
    assert (told["success"], told["model_id"]) == (True, QWEN)
    assert told["message"].startswith("Switched to Qwen2.5-0.5B-Instruct in ")
    assert serving(gantry) == QWEN
    again = gantry.post("/api/llm-switch", {"model_id": QWEN}).json()
    message = "Qwen2.5-0.5B-Instruct serves already."
    assert again == {"success": True, "message": message, "model_id": QWEN, "job_id": None}


def test_control_panel_restarts_what_serves(gantry: World) -> None:
    pids = "values_list('pid', flat=True)"
    [before] = gantry.ask("ModelInstance", pids)
    answer = gantry.post("/api/llm-restart")
    assert (answer.status_code, answer.json()["model_id"]) == (200, GPT)
    assert answer.json()["message"].startswith(f"Restarted {GPT} in ")
    [after] = gantry.ask("ModelInstance", pids)
    assert serving(gantry) == GPT
    assert after != before


def test_dashboard_switches_lists_and_unloads(gantry: World) -> None:
    answer = gantry.post("/api/admin/models/switch", {"model_id": LLAMA})
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": f"Model switched to {LLAMA}", "model_id": LLAMA},
    )
    active = [model["id"] for model in gantry.get("/api/admin/models").json()["models"] if model["active"]]
    assert active == [LLAMA]
    answer = gantry.post("/api/admin/models/unload")
    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "Model unloaded successfully", "model_id": LLAMA},
    )
    assert serving(gantry) is None
    assert gantry.post("/api/admin/models/unload").status_code == 409


def test_switch_that_is_polled_is_starting_or_loading_and_then_ready(gantry: World) -> None:
    began = gantry.post("/api/switch-model", model_id=QWEN).json()
    assert began["status"] == "switching"
    assert began["message"] == f"Switching to {QWEN}"
    assert began["info"] == "llama-server is loading the new model. Check /api/model-loading-status for progress."
    assert began["estimated_time_seconds"] >= 1
    states = []

    def is_ready() -> bool:
        states.append(gantry.get("/api/model-loading-status").json())
        return bool(states[-1]["status"] == "ready")

    wait_until(is_ready, WAIT_SECONDS)
    assert states[0]["status"] in {"starting", "loading"}  # not the former model's `ready`
    assert all(state["target_model"] == QWEN and not state["model_loaded"] for state in states[:-1])
    assert (states[-1]["model_loaded"], states[-1]["current_model"]) == (True, QWEN)
    again = gantry.post("/api/switch-model", model_id=QWEN).json()
    assert (again["status"], again["estimated_time_seconds"], again["job_id"]) == ("ready", 0, None)


def test_during_a_switch_all_documents_tell_of_it(loading: World) -> None:
    # What was read before the former model went may be told for another second.
    wait_until(lambda: loading.get("/v1/models/status").json()["models"][GPT]["status"] == "stopped", 1.0)
    assert loading.get("/v1/models/status").json()["models"][HELD]["status"] == "loading"
    told = loading.get("/api/llm-status").json()
    assert (told["running"], told["current_model"], told["switching_to"]) == (False, None, HELD)
    assert loading.get("/api/model-loading-status").json()["target_model"] == HELD
    states = {model["id"]: model["state"] for model in loading.get("/api/admin/models").json()["models"]}
    assert (states[HELD], states[GPT]) == ("loading", "idle")


def test_during_a_switch_restart_and_unload_are_refused(loading: World) -> None:
    for path in ("/api/llm-restart", "/api/admin/models/unload"):
        answer = loading.post(path)
        assert (answer.status_code, answer.json()["code"]) == (409, "job_running"), path


def test_answer_that_is_not_waited_for_says_that_it_goes_on(loading: World) -> None:
    answers = [
        loading.post("/api/llm-switch", {"model_id": HELD}, wait=0.2),
        loading.post("/api/admin/models/switch", {"model_id": HELD}, wait=0),
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    loading.held().go_on()
    assert loading.post("/api/llm-switch", {"model_id": HELD}).json()["success"]


def test_switch_that_fails_is_told_with_what_was_put_back(gantry: World) -> None:
    with ThreadPoolExecutor() as others:
        asked = others.submit(gantry.post, "/api/admin/models/switch", {"model_id": HELD})
        gantry.held().kill()
        answer = asked.result()
    assert answer.status_code == 409, answer.text
    assert answer.json()["code"] == "killed"
    assert f"{GPT} was put back." in answer.json()["detail"]
    assert serving(gantry) == GPT


def test_web_server_restarts_and_the_model_serves_on(gantry: World) -> None:
    [before] = gantry.ask("ModelInstance", "values_list('pid', flat=True)")
    answer = gantry.post("/api/restart-api")
    assert (answer.status_code, answer.json()["status"]) == (200, "restarting")
    wait_until(lambda: gantry.stack.has_said("web ended with exit code 0; starting it again"), WAIT_SECONDS)
    wait_until(lambda: _answers(gantry), WAIT_SECONDS)
    assert serving(gantry) == GPT
    assert gantry.ask("ModelInstance", "values_list('pid', flat=True)") == [before]
    [entry] = gantry.ask("AuditEntry", "filter(event='runtime:web:restart').values('actor_name', 'via')")
    assert entry == {"actor_name": "ann", "via": "rest"}


def _answers(gantry: World) -> bool:
    try:
        return httpx.get(f"{gantry.url}healthz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
