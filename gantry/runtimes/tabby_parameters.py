"""How a model is loaded by TabbyAPI: the typed parameters, and the request that they become.

Source: the fields of POST /v1/model/load, TabbyAPI at e632af4. Sizes are in the units that TabbyAPI takes: tokens, and GB or MB of
graphics memory where it says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field
from typing_extensions import override

from gantry.runtimes.typed_fields import Errors, ParameterInvalid, TypedFields

CHUNK_TOKENS = 2048  # TabbyAPI's own chunk_size
PAGE_TOKENS = 256  # its cache is given out in pages of this size

_NAME = r"^[^/\\\x00-\x1f\x7f]{1,200}$"
_GIGABYTES = "a list of GB, one number of 0 to 4096 for each GPU"
_MEGABYTES = "a list of MB, one number of 0 to 4194304 for each GPU"
_Pages = Annotated[
    int,
    Field(
        ge=PAGE_TOKENS,
        le=16_777_216,
        multiple_of=PAGE_TOKENS,
        description="a multiple of 256, at least 256 and at most 16777216",
    ),
]
_CacheMode = Annotated[
    str,
    Field(
        pattern=r"^(FP16|Q8|Q6|Q4|[2-8],[2-8])$",
        description='FP16, Q8, Q6, Q4, or the bits of keys and values such as "8,6"',
    ),
]
_PerGPU = Field(min_length=1, max_length=64)
_Split = Annotated[list[Annotated[float, Field(ge=0, le=4096)]], _PerGPU, Field(description=_GIGABYTES)]
_Reserve = Annotated[list[Annotated[float, Field(ge=0, le=4_194_304)]], _PerGPU, Field(description=_MEGABYTES)]
_Template = Annotated[str, Field(pattern=_NAME, description="the name of one of TabbyAPI's templates, without a path")]
_Directory = Annotated[
    str, Field(pattern=_NAME, description="the name of a directory that TabbyAPI lists, without a path")
]


class TabbyParameters(TypedFields):
    """Everything that is typed. None: TabbyAPI's own default."""

    max_seq_len: int | None = Field(None, ge=PAGE_TOKENS, le=16_777_216)  # tokens of one conversation
    cache_size: _Pages | None = None  # tokens of all conversations together
    cache_mode: _CacheMode | None = None
    gpu_split_auto: bool | None = None
    gpu_split: _Split | None = None
    autosplit_reserve: _Reserve | None = None
    tensor_parallel: bool | None = None
    rope_alpha: float | None = Field(None, ge=0.01, le=1000)
    chunk_size: int | None = Field(None, ge=PAGE_TOKENS, le=1_048_576)  # tokens of a prompt that are read at once
    prompt_template: _Template | None = None
    vision: bool | None = None
    draft_model: _Directory | None = None

    @classmethod
    @override
    def checked(cls, data: Mapping[str, Any]) -> Self:
        """The values, checked one by one and together.

        Raises:
            ParameterInvalid: carries one error for each key that cannot be used.
        """
        fields = super().checked(data)
        if errors := fields.clashes():
            raise ParameterInvalid(errors)
        return fields

    def body(self, model_name: str) -> dict[str, Any]:
        """The load request."""
        options = self.as_dict()
        draft = options.pop("draft_model", None)
        return {"model_name": model_name, **options, **({"draft_model": {"draft_model_name": draft}} if draft else {})}

    def clashes(self) -> Errors:
        """What is wrong with the values taken together."""
        errors: Errors = []
        if self.gpu_split_auto and self.gpu_split:
            errors.append(("gpu_split", "cannot be combined with gpu_split_auto: true; give one of them"))
        if self.max_seq_len and self.cache_size and self.cache_size < self.max_seq_len:
            errors.append(("cache_size", f"must hold one conversation: at least max_seq_len ({self.max_seq_len})"))
        room = self.cache_size or self.max_seq_len
        least = (self.chunk_size or CHUNK_TOKENS) // PAGE_TOKENS * PAGE_TOKENS + PAGE_TOKENS
        if room and room < least:
            # TabbyAPI loads the model all the same, and then refuses every single chat.
            name = "cache_size" if self.cache_size else "max_seq_len"
            errors.append((name, f"must be at least {least}, or lower chunk_size: no chat would fit (got {room})"))
        return errors


def validate_parameters(data: Mapping[str, Any]) -> TabbyParameters:
    """The parameters, checked.

    Raises:
        ParameterInvalid: carries an error for each parameter that cannot be used.
    """
    return TabbyParameters.checked(data)


_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


def name_error(model_id: str) -> str:
    """What is wrong with a model's name; "" when it may be sent.

    TabbyAPI takes any path that exists, also `.` and those above its directory, and unloads what it has before it looks inside.
    """
    parts = model_id.split("/")
    if not model_id or len(model_id) > 500 or _CONTROL.search(model_id):
        return "A model is named by its directory, with 1 to 500 printable characters."
    if any(part in {"", ".", ".."} for part in parts):
        return f"{model_id} leads out of TabbyAPI's model directory: name the directory as TabbyAPI lists it."
    return ""
