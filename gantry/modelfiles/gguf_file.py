"""What a GGUF model says of itself."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from gguf.constants import GGMLQuantizationType, Keys, LlamaFileType

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_header import GGUFHeader, TensorInfo, read_header
from gantry.modelfiles.gguf_keys import KeyReader
from gantry.modelfiles.memory_facts import memory_facts
from gantry.planning.estimates import ModelFacts

REMEMBERED_FILES = 512

_Stamp = tuple[int, ...]
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)
_SIZE_LABEL = re.compile(r"^[0-9A-Za-z.x-]{1,20}$")
_OTHER_KINDS: Final = {
    "adapter": "is a LoRA adapter, not a model",
    "mmproj": "is an image or sound projector of another model, not a model",
    "imatrix": "is an importance matrix, not a model",
}


@dataclass(frozen=True, slots=True)
class GGUFFacts:
    """A model's own description. Texts are clean of control characters."""

    path: Path  # the file to load; of several shards the first
    shards: tuple[Path, ...]  # all its files
    name: str
    architecture: str
    quantization: str  # "Q4_K_M"; "" when the file does not say
    parameter_count: int
    parameter_label: str  # "135M", "20B", "8x7B"
    size_bytes: int  # of all its files
    context_length: int  # tokens it was trained for
    has_chat_template: bool
    is_embedding: bool  # it makes embeddings and cannot chat: a guess from how it pools
    memory: ModelFacts

    @property
    def layer_count(self) -> int:
        """Its layers."""
        return self.memory.layer_count


def read_gguf(path: Path) -> GGUFFacts:
    """What the model in `path` says of itself; any one of several shards stands for all of them.

    Reads the headers only: a tenth of a second for a vocabulary of 260,000 words, whatever the size of the weights. Files that
    have not changed since are not read again.

    Raises:
        ModelFileInvalid: not a GGUF file, not a model, damaged, cut off, or a shard is missing.
    """
    shards = shard_paths(path)
    return _read(tuple((shard, _stamp(shard)) for shard in shards))


@lru_cache(maxsize=REMEMBERED_FILES)
def _read(stamped: tuple[tuple[Path, _Stamp], ...]) -> GGUFFacts:
    """The facts of shards as they were at these stamps. A file that cannot be used is looked at each time."""
    shards = [shard for shard, _ in stamped]
    headers = [read_header(shard) for shard in shards]
    first = headers[0]
    _check_is_model(first, len(shards))
    tensors = [tensor for header in headers for tensor in header.tensors]
    if not tensors:
        raise ModelFileInvalid(shards[0], "holds no weights")
    keys = KeyReader(first)
    count = sum(tensor.element_count for tensor in tensors)
    pooling = keys.whole(Keys.LLM.POOLING_TYPE, 0)
    return GGUFFacts(
        path=shards[0],
        shards=tuple(shards),
        name=keys.text(Keys.General.NAME, 200) or _stem(shards[0]),
        architecture=keys.architecture,
        quantization=_quantization(keys, tensors),
        parameter_count=count,
        parameter_label=_size_label(keys) or count_label(count),
        size_bytes=sum(header.file_bytes for header in headers),
        context_length=keys.whole(Keys.LLM.CONTEXT_LENGTH, 0),
        has_chat_template=bool(first.values.get(Keys.Tokenizer.CHAT_TEMPLATE)),
        is_embedding=pooling in {1, 2, 3} or (pooling == 0 and not keys.flag(Keys.Attention.CAUSAL, default=True)),
        memory=memory_facts(keys, tensors),
    )


def _stamp(path: Path) -> _Stamp:
    """Changes whenever the file does: inode, size, and the times of its content and of its entry."""
    try:
        stat = path.stat()
    except OSError:  # whoever reads it says why it cannot be
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def shard_paths(path: Path) -> list[Path]:
    """All files of the model in `path`, in order: itself, or every shard.

    Raises:
        ModelFileInvalid: a shard is missing, or the numbers in the name make no sense.
    """
    match = _SHARD.match(path.name)
    if not match:
        return [path]
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count:
        raise ModelFileInvalid(path, f"is part {number} of {count} by its name, which cannot be")
    shards = []
    for part in range(1, count + 1):
        start, end = match.span("number")
        shard = path.with_name(f"{path.name[:start]}{part:05d}{path.name[end:]}")
        if not _is_file(shard):
            raise ModelFileInvalid(path, f"has {count} parts, and part {part} is missing: {shard.name}")
        shards.append(shard)
    return shards


def is_later_shard(path: Path) -> bool:
    """It is a shard, and not the first."""
    match = _SHARD.match(path.name)
    return match is not None and int(match["number"]) != 1


def count_label(count: int) -> str:
    """A number of parameters as people say it: "135M", "1.7B", "20B"."""
    for limit, sign in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if count >= limit * 0.9995:
            scaled = count / limit
            return f"{scaled:.0f}{sign}" if scaled >= 9.95 else f"{scaled:.1f}{sign}".replace(".0", "")
    return f"{count / 1e3:.0f}K"


def _check_is_model(header: GGUFHeader, shard_count: int) -> None:
    keys = KeyReader(header)
    kind = keys.text(Keys.General.TYPE, 20)
    if keys.architecture == "clip":
        kind = "mmproj"
    if kind in _OTHER_KINDS:
        raise ModelFileInvalid(header.path, _OTHER_KINDS[kind])
    told = keys.whole(Keys.Split.LLM_KV_SPLIT_COUNT, 1)
    if max(told, 1) != shard_count:
        raise ModelFileInvalid(
            header.path, f"is one of {told} parts by its own account, and of {shard_count} by its name"
        )


def _quantization(keys: KeyReader, tensors: list[TensorInfo]) -> str:
    """As llama.cpp names it; where the file does not say, the type that most of its weights have."""
    told = keys.whole(Keys.General.FILE_TYPE, -1)
    try:
        name = LlamaFileType(told & ~LlamaFileType.GUESSED).name if told >= 0 else ""
    except ValueError:
        name = ""
    return name.removeprefix("MOSTLY_").removeprefix("ALL_").removesuffix("_MOE") or _commonest_type(tensors)


def _commonest_type(tensors: list[TensorInfo]) -> str:
    sizes: Counter[GGMLQuantizationType] = Counter()
    for tensor in tensors:
        sizes[tensor.kind] += tensor.size_bytes
    return sizes.most_common(1)[0][0].name


def _size_label(keys: KeyReader) -> str:
    label = keys.text(Keys.General.SIZE_LABEL, 50)
    return label if _SIZE_LABEL.match(label) else ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _stem(path: Path) -> str:
    match = _SHARD.match(path.name)
    return match["stem"] if match else path.stem
