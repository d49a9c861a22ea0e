"""The models that the double has on its disk, and what becomes of loading each."""

from __future__ import annotations

from dataclasses import dataclass

OUT_OF_MEMORY = "Insufficient VRAM in split for model and cache"
LATE_OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.99 GiB of which 512.00 MiB is free."
DAMAGED = "double: tensor data is damaged"
OLD_QUANTISATION = (
    "Models quantized with 'exl2' require the exllamav2 backend, which is no longer supported. "
    "Please use an exl3 or unquantized model."
)


@dataclass
class FakeModel:
    """One entry below the model directory. Change the fields at any time; a load looks when it begins."""

    modules: int = 8
    module_seconds: float = 0.06  # from one module to the next
    fails_at: int | None = None  # this module is not reached; `error` is sent in its place
    fails_late: bool = False  # `error` is sent after `finished`
    error: str = DAMAGED
    refuses_with: str = ""  # sent before the first module, when the old model is gone already
    vision_modules: int = 0  # loaded first when the request says `vision`
    max_seq_len: int = 4096
    has_template: bool = True
    is_model: bool = True  # False: a directory without config.json, or a plain file


def standard_models(module_seconds: float = 0.06) -> dict[str, FakeModel]:
    """A set with one of each kind, path -> model, in the order in which the list gives them."""
    models = {
        "small-ctx-1b": FakeModel(modules=4, max_seq_len=2304),
        "oldquant-7b": FakeModel(refuses_with=OLD_QUANTISATION),
        "broken-8b": FakeModel(fails_at=5),
        "draft-1b": FakeModel(modules=3),
        "slow-34b": FakeModel(modules=12, module_seconds=0.25),
        "notemplate-7b": FakeModel(has_template=False),
        "alpha-7b": FakeModel(),
        "not-a-model": FakeModel(is_model=False),
        "cousin/4.0bpw": FakeModel(),
        "toolarge-70b": FakeModel(fails_at=5, error=OUT_OF_MEMORY),
        "beta-13b": FakeModel(),
        "family/4.0bpw": FakeModel(),
        "vision-9b": FakeModel(modules=4, vision_modules=4),
        "lateoom-30b": FakeModel(fails_late=True, error=LATE_OUT_OF_MEMORY),
        "README.txt": FakeModel(is_model=False),
    }
    scale = module_seconds / 0.06
    for model in models.values():
        model.module_seconds *= scale
    return models


def directories(models: dict[str, FakeModel]) -> list[str]:
    """What the list shows: top directories, each once; plain files are none."""
    return list(dict.fromkeys(path.split("/")[0] for path in models if not path.endswith(".txt")))
