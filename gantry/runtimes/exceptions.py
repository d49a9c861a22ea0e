"""What a runtime can fail with.

RuntimeFault                 carries an ErrorCode, the last log lines and the exit of the process, if any
├── RuntimeAway              it does not answer (refused, timed out, no such host)
├── RuntimeRefused           it answered, and refused (key, unknown model, bad parameter)
├── LoadFailed               a load ended without a model
├── LoadCancelled            a load was stopped because Gantry asked for it
├── UnloadFailed             a model would not go
└── VerifyFailed             a loaded model produced no token
"""

from __future__ import annotations

from gantry.planning.states import ErrorCode


class RuntimeFault(Exception):
    """Something a runtime did or failed to do.

    Attributes:
        code: the cause, as people are told.
        detail: specific words beside the code's own sentence; may be empty. Never holds a secret.
        log_tail: last lines of the runtime's log, oldest first.
        exit_text: how the process ended ("exited with 1", "killed by signal 9"), or "".
    """

    code = ErrorCode.LOAD_FAILED

    def __init__(
        self,
        detail: str = "",
        *,
        code: ErrorCode | None = None,
        log_tail: tuple[str, ...] = (),
        exit_text: str = "",
    ) -> None:
        super().__init__(detail or (code or self.code).value)
        if code is not None:
            self.code = code
        self.detail = detail
        self.log_tail = log_tail
        self.exit_text = exit_text


class RuntimeAway(RuntimeFault):
    """The runtime does not answer."""

    code = ErrorCode.RUNTIME_UNREACHABLE


class RuntimeRefused(RuntimeFault):
    """The runtime answered and refused."""

    code = ErrorCode.BAD_PARAMETER


class LoadFailed(RuntimeFault):
    """A load ended without a model."""

    code = ErrorCode.LOAD_FAILED


class LoadCancelled(RuntimeFault):
    """A load was stopped because Gantry asked for it."""


class UnloadFailed(RuntimeFault):
    """A model would not go."""

    code = ErrorCode.UNLOAD_FAILED


class VerifyFailed(RuntimeFault):
    """A loaded model produced no token."""

    code = ErrorCode.VERIFY_FAILED
