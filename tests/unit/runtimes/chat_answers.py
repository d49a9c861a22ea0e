"""What a real llama-server (build 10068) has answered to a chat: an answer, refusals, an error in mid-answer."""

from __future__ import annotations

_HEAD = '"created":1795266888,"id":"chatcmpl-USeCie3tJeCvMZR3d6zkaiyihZxNU8Fc","model":"tiny.gguf"'
_END = '"system_fingerprint":"b1-571d0d5","object":"chat.completion.chunk"'


def _chunk(choices: str, more: str = "") -> str:
    return f'{{"choices":{choices},{_HEAD},{_END}{more}}}'


def _piece(delta: str, reason: str = "null") -> str:
    return _chunk(f'[{{"finish_reason":{reason},"index":0,"delta":{delta}}}]')


ANSWER = (
    _piece('{"role":"assistant","content":null}'),
    _piece('{"content":" rar"}'),
    _piece('{"content":"e"}'),
    _piece('{"content":" mor"}'),
    _piece('{"content":" mor"}'),
    _piece("{}", '"length"'),
    _chunk(
        "[]",
        ',"usage":{"completion_tokens":4,"prompt_tokens":21,"total_tokens":25,'
        '"prompt_tokens_details":{"cached_tokens":0}},"timings":{"cache_n":0,"prompt_n":21,"prompt_ms":0.748,'
        '"prompt_per_token_ms":0.03561904761904762,"prompt_per_second":28074.86631016043,"predicted_n":4,'
        '"predicted_ms":0.4,"predicted_per_token_ms":0.1,"predicted_per_second":10000.0}',
    ),
    "[DONE]",
)
SLOT_DIED = '{"error":{"code":500,"message":"the slot died","type":"server_error"}}'
REFUSALS = {
    400: (
        b'{"error":{"code":400,"message":"request (3619 tokens) exceeds the available context size (256 tokens), '
        b'try increasing it","type":"exceed_context_size_error","n_prompt_tokens":3619,"n_ctx":256}}'
    ),
    401: b'{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}',
    503: b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}',
}
