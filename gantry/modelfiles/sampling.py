"""How a model's answers are sampled unless a request says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gantry.runtimes.typed_fields import TypedFields

_STOP_WORDS = "a text or a list of up to 16 texts of 1 to 200 characters"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _number(value: Any) -> Any:
    """A whole number serves where any number may stand; yes and no do not."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


_Number = BeforeValidator(_number)
_StopWord = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+\z")]  # PostgreSQL stores no NUL
_StopWords = Annotated[list[_StopWord], Field(max_length=16, description=_STOP_WORDS)]


class Sampling(TypedFields):
    """Defaults for chat, by the names that the chat endpoint of llama-server knows. None: the server's own default."""

    temperature: Annotated[float | None, _Number] = Field(None, ge=0, le=5)
    top_p: Annotated[float | None, _Number] = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    min_p: Annotated[float | None, _Number] = Field(None, ge=0, le=1)
    repeat_penalty: Annotated[float | None, _Number] = Field(None, ge=0, le=10)
    max_tokens: int | None = Field(None, ge=1, le=16_777_216)
    stop: Annotated[_StopWords | None, BeforeValidator(_as_list)] = None


def validate_sampling(data: Mapping[str, Any]) -> Sampling:
    """The sampling defaults, checked.

    Raises:
        ParameterInvalid: carries an error for each value that cannot be used.
    """
    return Sampling.checked(data)
