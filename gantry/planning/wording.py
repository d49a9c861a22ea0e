"""What each error code means in words: one sentence, and what to do next."""

from __future__ import annotations

from typing import NamedTuple

from gantry.planning.states import ErrorCode


class Wording(NamedTuple):
    """`short` fits behind "Failed:", `sentence` stands alone, `hint` says what to do."""

    short: str
    sentence: str
    hint: str


WORDINGS: dict[ErrorCode, Wording] = {
    ErrorCode.INSUFFICIENT_MEMORY: Wording(
        "does not fit",
        "The model needs more memory than can be freed.",
        "Choose a smaller model, a smaller context, or unpin a model that is loaded.",
    ),
    ErrorCode.OUT_OF_MEMORY: Wording(
        "out of memory",
        "The runtime ran out of memory while it loaded the model.",
        "Lower its context size (with llama-server also its GPU layers), or unload another model, then switch again.",
    ),
    ErrorCode.NOT_DOWNLOADED: Wording(
        "files missing",
        "The model is not where its definition says.",
        "Put its files back, or correct its path in the definition.",
    ),
    ErrorCode.FILE_DAMAGED: Wording(
        "files damaged",
        "The model's files are damaged or not complete.",
        "Download or copy them again, then switch again.",
    ),
    ErrorCode.RUNTIME_MISSING: Wording(
        "no llama-server",
        "llama-server was not found on this host.",
        "Install llama-server, or set GANTRY_LLAMA_SERVER to its path.",
    ),
    ErrorCode.RUNTIME_UNREACHABLE: Wording(
        "runtime away",
        "The runtime did not answer.",
        "Check that the server runs and that its address is right.",
    ),
    ErrorCode.UNAUTHORISED: Wording(
        "key refused",
        "The runtime refused Gantry's key.",
        "Correct the key in the runtime's settings.",
    ),
    ErrorCode.BAD_PARAMETER: Wording(
        "bad parameter",
        "The runtime does not understand one of the model's parameters.",
        "Correct the parameters in the model's definition; the runtime's own words or its log name the one.",
    ),
    ErrorCode.PORT_TAKEN: Wording(
        "port taken",
        "Another program took the port that was chosen for the model.",
        "Switch again: a new port is chosen each time.",
    ),
    ErrorCode.WRONG_CPU: Wording(
        "wrong llama-server build",
        "This llama-server was built for another kind of processor.",
        "Install a build for this machine, or set GANTRY_LLAMA_SERVER to one.",
    ),
    ErrorCode.KILLED: Wording(
        "killed",
        "The model's process was killed from outside.",
        "If the machine was short of memory, the kernel did it: use a smaller model or context. Restart the model to go on.",
    ),
    ErrorCode.CRASHED: Wording(
        "crashed",
        "The model's process ended by itself while it served.",
        "The last lines of its log name the cause. Restart the model to go on.",
    ),
    ErrorCode.LOAD_FAILED: Wording(
        "did not load",
        "The runtime could not load the model.",
        "Read what the runtime said about it, here or at the end of its log, mend that, and switch again.",
    ),
    ErrorCode.LOAD_STALLED: Wording(
        "stalled",
        "The load showed no sign of progress and was given up.",
        "Check the disk that holds the model, then switch again.",
    ),
    ErrorCode.LOAD_TIMEOUT: Wording(
        "took too long",
        "The load did not end within its time limit.",
        "Check the disk that holds the model, or raise the limit.",
    ),
    ErrorCode.UNLOAD_FAILED: Wording(
        "did not unload",
        "The model could not be unloaded.",
        "Look at the runtime's log and at the process on its host.",
    ),
    ErrorCode.MEMORY_NOT_FREED: Wording(
        "memory not freed",
        "The memory of the unloaded model did not come back.",
        "Look for a process that holds it; then switch again.",
    ),
    ErrorCode.MEMORY_UNREADABLE: Wording(
        "memory unreadable",
        "The memory could not be looked at.",
        "Check that the GPU and its driver answer (nvidia-smi), or set GANTRY_MEMORY to a fixed amount.",
    ),
    ErrorCode.VERIFY_FAILED: Wording(
        "no answer",
        "The model loaded but could not produce a token.",
        "Its files or its parameters may be wrong; the runtime's log names the cause.",
    ),
    ErrorCode.STILL_ANSWERING: Wording(
        "still answering",
        "Answers were still running when the waiting time was over, so nothing was unloaded.",
        "Switch again when they have ended, or change under Policy what is done with running answers.",
    ),
    ErrorCode.CALL_FAILED: Wording(
        "call failed",
        "The model was loaded, but the call to it failed.",
        "The reason stands beside this; ask again.",
    ),
    ErrorCode.INTERRUPTED: Wording(
        "interrupted",
        "The worker that ran this job stopped in the middle.",
        "Gantry has put its records right; switch again.",
    ),
    ErrorCode.INTERNAL: Wording(
        "internal fault",
        "Gantry met a fault of its own.",
        "The details are in the worker's log; please report them.",
    ),
}


def wording(code: str) -> Wording:
    """The words for an error code; an unknown one is worded as an internal fault."""
    try:
        return WORDINGS[ErrorCode(code)]
    except ValueError:
        return WORDINGS[ErrorCode.INTERNAL]
