"""Tiny random models that the real llama-server loads in a blink and generates words from.

Random weights make nonsense, but of whole words: the rows of all special and byte tokens in the output
matrix are zero, so that sampling practically never ends early and always gives readable text.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
CONTEXT_LENGTH = 2048
N_HEADS = 4
N_SPECIAL = 3 + 256  # unknown, begin, end, and one token for each byte

Array = npt.NDArray[np.float32]


def write_tiny_model(
    path: Path,
    *,
    seed: int = 0,
    n_layers: int = 2,
    n_embd: int = 64,
    n_ff: int = 128,
    padding_bytes: int = 0,
    chat_template: str = CHAT_TEMPLATE,
    name: str = "Tiny random model",
) -> Path:
    """Write a complete llama-architecture GGUF file (F32) of about half a megabyte.

    Args:
        padding_bytes: makes the file at least this much larger, by wide layers of zeros. They are holes in
            a sparse file, so that a gigabyte costs no disk and no time to write, yet must be read to load.
    """
    if padding_bytes:
        n_ff += -(-padding_bytes // (3 * n_embd * 4 * n_layers))
    writer = gguf.GGUFWriter(path, "llama")
    _add_metadata(writer, name, n_layers, n_embd, n_ff, chat_template)
    tensors = list(_tensors(np.random.default_rng(seed), n_layers, n_embd, n_ff))
    for tensor_name, shape, _ in tensors:
        writer.add_tensor_info(tensor_name, shape, np.dtype(np.float32), int(np.prod(shape)) * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    _write_tensors(path, tensors)
    return path


def write_truncated(path: Path, **options: int) -> Path:
    """A real model file whose second half is missing, as after a download that broke off."""
    write_tiny_model(path, **options)  # type: ignore[arg-type] # whole numbers only: seed, n_layers, n_embd, n_ff
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    return path


def write_not_gguf(path: Path) -> Path:
    """A file with the right name and the wrong content, as when a login page was saved instead."""
    path.write_bytes(b"<!doctype html><title>Sign in</title>\n" * 100)
    return path


def tokens() -> list[str]:
    """The vocabulary: special tokens, bytes, then 300 short words and the letters."""
    words = [f"▁{a}{b}{c}" for a, b, c in product("bdgklmnprst", "aeiou", ("", "n", "r", "s", "l", "m"))][:300]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz.,!?:\n"]
    return ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, *letters]


def _add_metadata(
    writer: gguf.GGUFWriter, name: str, n_layers: int, n_embd: int, n_ff: int, chat_template: str
) -> None:
    words = tokens()
    writer.add_name(name)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layers)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS)
    writer.add_rope_dimension_count(n_embd // N_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * N_SPECIAL + [-float(index) for index in range(len(words) - N_SPECIAL)])
    writer.add_token_types(_token_types(len(words)))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    if chat_template:
        writer.add_chat_template(chat_template)


def _token_types(count: int) -> list[int]:
    special = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    return [*special, *[gguf.TokenType.BYTE] * 256, *[gguf.TokenType.NORMAL] * (count - N_SPECIAL)]


Tensor = tuple[str, tuple[int, ...], Array | None]  # name, shape, values (None: all zero)


def _tensors(rng: np.random.Generator, n_layers: int, n_embd: int, n_ff: int) -> Iterator[Tensor]:
    def random(name: str, rows: int, columns: int) -> Tensor:
        values = rng.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)
        return (name, (rows, columns), values)

    def ones(name: str) -> Tensor:
        return (name, (n_embd,), np.ones(n_embd, np.float32))

    n_vocab = len(tokens())
    yield random("token_embd.weight", n_vocab, n_embd)
    yield ones("output_norm.weight")
    output = rng.normal(0, 1, (n_vocab, n_embd)).astype(np.float32)
    output[:N_SPECIAL] = 0
    output[-1] = 0  # no line breaks either
    yield ("output.weight", (n_vocab, n_embd), output)
    for layer in range(n_layers):
        yield ones(f"blk.{layer}.attn_norm.weight")
        yield ones(f"blk.{layer}.ffn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield random(f"blk.{layer}.{part}.weight", n_embd, n_embd)
        yield (f"blk.{layer}.ffn_gate.weight", (n_ff, n_embd), None)
        yield (f"blk.{layer}.ffn_up.weight", (n_ff, n_embd), None)
        yield (f"blk.{layer}.ffn_down.weight", (n_embd, n_ff), None)


def _write_tensors(path: Path, tensors: list[Tensor]) -> None:
    """Append the values behind the header, each aligned as GGUF demands; zeros become holes."""
    with path.open("r+b") as file:
        position = _aligned(file.seek(0, 2))
        for _, shape, values in tensors:
            if values is not None:
                file.seek(position)
                file.write(values.tobytes())
            position = _aligned(position + int(np.prod(shape)) * 4)
        file.truncate(position)


def _aligned(position: int) -> int:
    return -(-position // gguf.GGUF_DEFAULT_ALIGNMENT) * gguf.GGUF_DEFAULT_ALIGNMENT
