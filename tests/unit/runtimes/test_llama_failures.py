"""The last words of real llama-servers (build 10068, CPU), and what they are taken for."""

from __future__ import annotations

import errno

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.llama_failures import Ending, explain

EXITED = Ending(code=1)
NOT_GGUF = """\
0.00.005.629 I common_params_fit_impl: getting device memory data for initial parameters:
0.00.005.682 E gguf_init_from_reader: invalid magic characters: '<!do', expected 'GGUF'
0.00.005.733 E llama_model_load: error loading model: llama_model_loader: failed to load model from html.gguf
0.00.005.741 E llama_model_load_from_file_impl: failed to load model
0.00.005.792 E srv    load_model: failed to load model, 'html.gguf'
0.00.007.365 E srv  llama_server: exiting due to model loading error"""
TRUNCATED = """\
0.00.004.999 E llama_model_load: error loading model: tensor 'blk.0.attn_q.weight' data is not within the file bounds, \
model is corrupted or incomplete
0.00.005.011 E llama_model_load_from_file_impl: failed to load model
0.00.005.031 E common_fit_params: encountered an error while trying to fit params to free device memory: failed to load model"""
EMPTY = """\
0.00.004.165 E gguf_init_from_reader: failed to read magic
0.00.004.199 E llama_model_load: error loading model: llama_model_loader: failed to load model from empty.gguf"""
MISSING = """\
0.00.004.061 E gguf_init_from_file: failed to open GGUF file '/nope.gguf' (No such file or directory)
0.00.004.101 E llama_model_load: error loading model: llama_model_loader: failed to load model from /nope.gguf"""
UNKNOWN_ARCHITECTURE = """\
0.00.004.555 E llama_model_load: error loading model: unknown model architecture: 'lwama'
0.00.004.556 E llama_model_load_from_file_impl: failed to load model"""
PORT_TAKEN = """\
0.00.002.578 I srv         start: binding port with default address family
0.00.002.631 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 48199
0.00.002.707 E srv  llama_server: exiting due to HTTP server error"""
NO_MEMORY_MAPPED = """\
0.00.008.852 E llama_model_load: error loading model: mmap failed: Cannot allocate memory
0.00.008.868 E llama_model_load_from_file_impl: failed to load model"""
NO_MEMORY_READ = """\
0.00.007.619 E ggml_aligned_malloc: insufficient memory (attempted to allocate 1024.60 MB)
0.00.007.620 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1074374400
0.00.007.672 E llama_model_load: error loading model: unable to allocate CPU buffer"""
NO_MEMORY_FOR_CONTEXT = """\
0.02.473.941 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache
0.02.473.965 E cmn  common_init_: failed to create context with model 'tiny.gguf'"""
NO_GPU_MEMORY = """\
0.01.000.000 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory
0.01.000.100 E llama_model_load: error loading model: unable to allocate CUDA0 buffer"""
BAD_FLAG = "error: invalid argument: --wobble"
BAD_VALUE = 'error while handling argument "--cache-type-k": Unsupported cache type: q99'
BAD_TEMPLATE = """\
0.00.002.573 E common_chat_templates_init: please consider disabling jinja via --no-jinja, or using another chat template
error: the supplied chat template is not supported: {% for x in %}{{"""
BAD_COMBINATION = "0.00.005.148 E llama_init_from_model: V cache quantization requires flash_attn"
NO_LIBRARY = "llama-server: error while loading shared libraries: libggml.so: cannot open shared object file"


@pytest.mark.parametrize(
    ("log", "code", "detail"),
    [
        (NOT_GGUF, ErrorCode.FILE_DAMAGED, "invalid magic characters: '<!do', expected 'GGUF'"),
        (TRUNCATED, ErrorCode.FILE_DAMAGED, "error loading model: tensor 'blk.0.attn_q.weight' data is not within"),
        (EMPTY, ErrorCode.FILE_DAMAGED, "failed to read magic"),
        (MISSING, ErrorCode.NOT_DOWNLOADED, "failed to open GGUF file '/nope.gguf' (No such file or directory)"),
        (UNKNOWN_ARCHITECTURE, ErrorCode.LOAD_FAILED, "error loading model: unknown model architecture: 'lwama'"),
        (PORT_TAKEN, ErrorCode.PORT_TAKEN, "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 48199"),
        (NO_MEMORY_MAPPED, ErrorCode.OUT_OF_MEMORY, "error loading model: mmap failed: Cannot allocate memory"),
        (NO_MEMORY_READ, ErrorCode.OUT_OF_MEMORY, "insufficient memory (attempted to allocate 1024.60 MB)"),
        (NO_MEMORY_FOR_CONTEXT, ErrorCode.OUT_OF_MEMORY, "failed to initialize the context: failed to allocate"),
        (NO_GPU_MEMORY, ErrorCode.OUT_OF_MEMORY, "allocating 4096.00 MiB on device 0: cudaMalloc failed"),
        (BAD_FLAG, ErrorCode.BAD_PARAMETER, "error: invalid argument: --wobble"),
        (BAD_VALUE, ErrorCode.BAD_PARAMETER, 'error while handling argument "--cache-type-k"'),
        (BAD_TEMPLATE, ErrorCode.BAD_PARAMETER, "error: the supplied chat template is not supported"),
        (BAD_COMBINATION, ErrorCode.BAD_PARAMETER, "V cache quantization requires flash_attn"),
        (NO_LIBRARY, ErrorCode.RUNTIME_MISSING, "llama-server: error while loading shared libraries: libggml.so"),
        ("", ErrorCode.LOAD_FAILED, ""),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_last_words_name_the_cause(log: str, code: ErrorCode, detail: str) -> None:
    found, line = explain(EXITED, log.splitlines(), was_ready=False)
    assert found == code
    assert line.startswith(detail)


@pytest.mark.parametrize(
    ("ending", "text", "code"),
    [
        (Ending(signal=9), "killed by signal 9", ErrorCode.KILLED),
        (Ending(signal=4), "killed by signal 4", ErrorCode.WRONG_CPU),
        (Ending(errno=errno.ENOEXEC), "could not be started", ErrorCode.WRONG_CPU),
        (Ending(errno=errno.ENOENT), "could not be started", ErrorCode.RUNTIME_MISSING),
        (Ending(is_known=False), "gone without a trace", ErrorCode.KILLED),
        (Ending(signal=11), "killed by signal 11", ErrorCode.LOAD_FAILED),
        (Ending(code=1), "exited with 1", ErrorCode.LOAD_FAILED),
    ],
)
def test_ending_without_words(ending: Ending, text: str, code: ErrorCode) -> None:
    assert ending.text == text
    assert explain(ending, (), was_ready=False) == (code, "")


def test_end_while_serving_is_a_crash() -> None:
    assert explain(Ending(signal=11), (), was_ready=True) == (ErrorCode.CRASHED, "")
    assert explain(EXITED, NO_GPU_MEMORY.splitlines(), was_ready=True)[0] == ErrorCode.OUT_OF_MEMORY
