"""What a real router (build 10068) has answered, cut where it only repeats itself."""

from __future__ import annotations

from typing import Any

import httpx

PROPS = (
    b'{"role":"router","max_instances":4,"models_autoload":true,"model_alias":"llama-server","build_info":"b1-571d0d5"}'
)


def _row(name: str, status: dict[str, Any], **more: Any) -> dict[str, Any]:
    arguments = ["/opt/llama-server", "--host", "127.0.0.1", "--port", "0", "--threads-http", "64", "--alias", name]
    arguments += ["--ctx-size", "256", "--flash-attn", "on", "--no-mmap", "--model", f"/models/{name}.gguf"]
    return {
        "id": name,
        "aliases": [],
        "tags": [],
        "object": "model",
        "owned_by": "llamacpp",
        "created": 1795244837,
        "status": {**status, "args": arguments, "preset": f"[{name}]\nctx-size = 256\n\n"},
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "source": "preset",
        "can_remove": False,
        **more,
    }


META = {
    "vocab_type": 1,
    "n_vocab": 592,
    "n_ctx": 256,
    "n_ctx_train": 2048,
    "n_embd": 64,
    "n_params": 158016,
    "size": 632064,
    "ftype": "all F32",
}
MODELS: dict[str, Any] = {
    "data": [
        _row("tiny", {"value": "loaded"}, aliases=["t1"], meta=META),
        _row("gemma", {"value": "loading"}),
        _row("smol", {"value": "sleeping"}, meta=META),
        _row("large", {"value": "unloaded"}),
        _row("page", {"value": "unloaded", "exit_code": 1, "failed": True}),
    ],
    "object": "list",
}
_READING = '"progress":{"stages":["text_model"],"current":"text_model","value":%s}'
EVENTS = [
    '{"model":"large","event":"model_status","data":{"status":"loading"}}',
    '{"model":"large","event":"status_change","data":{"status":"loading",%s}}' % (_READING % "0.0"),
    '{"model":"large","event":"status_change","data":{"status":"loading",%s}}' % (_READING % "0.33357080817222595"),
    '{"model":"large","event":"model_status","data":{"status":"loading",%s}}' % (_READING % "1.0"),
    '{"model":"*","event":"models_reload"}',
    '{"model":"large","event":"status_change","data":{"status":"loaded","info":{"id":"large","meta":{"n_ctx":256}}}}',
    '{"model":"smol","event":"status_change","data":{"status":"sleeping"}}',
    '{"model":"page","event":"status_change","data":{"status":"unloaded","exit_code":1}}',
]
LOADED = b'{"success":true}'
RUNNING_ALREADY = b'{"error":{"code":400,"message":"model is already running","type":"invalid_request_error"}}'
NOT_RUNNING = b'{"error":{"code":400,"message":"model is not running","type":"invalid_request_error"}}'
NOT_FOUND = b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}'
BAD_KEY = b'{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}'
SLOTS = b'[{"id":0,"n_ctx":256,"is_processing":false},{"id":1,"n_ctx":256,"is_processing":true}]'
TOKEN = (
    b'{"choices":[{"text":" mun","index":0,"finish_reason":"length"}],"model":"tiny","usage":{"completion_tokens":1}}'
)


def stream_of(events: list[str]) -> bytes:
    """Events as they come over the wire."""
    return "".join(f"data: {event}\n\n" for event in events).encode()


def reply(status: int, body: bytes) -> httpx.Response:
    """An answer that is read as it comes, as from the wire."""
    return httpx.Response(status, stream=httpx.ByteStream(body))
