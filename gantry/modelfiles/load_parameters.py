"""The parameters of a load, where nothing but their names tells for which server they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gantry.runtimes import llama_parameters, tabby_parameters
from gantry.runtimes.typed_fields import TypedFields

_TABBY_ONLY = (
    tabby_parameters.TabbyParameters.model_fields.keys() - llama_parameters.LlamaParameters.model_fields.keys()
)


def are_for_tabby(data: Mapping[str, Any]) -> bool:
    """Whether one of these is a parameter of TabbyAPI's and not of llama-server's."""
    return not _TABBY_ONLY.isdisjoint(data)


def validate_load_parameters(data: Mapping[str, Any]) -> TypedFields:
    """The parameters, checked: TabbyAPI's when one of them is its alone, else llama-server's.

    Raises:
        ParameterInvalid: carries an error for each parameter that cannot be used.
    """
    check = tabby_parameters.validate_parameters if are_for_tabby(data) else llama_parameters.validate_parameters
    return check(data)
