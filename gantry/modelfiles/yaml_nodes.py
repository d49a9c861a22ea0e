"""YAML with every value's line kept, so that each error can name its place.

Values are read from PyYAML's nodes instead of finished objects; nothing but plain texts, numbers, yes and no,
lists and mappings is ever built. Aliases are refused: a few lines of them can stand for gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import yaml
from typing_extensions import override
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gantry.modelfiles.exceptions import ModelsYAMLInvalid
from gantry.modelfiles.model_entry import printable
from gantry.runtimes.typed_fields import got, unknown_key_text

LARGEST_FILE = 1024**2  # bytes
DEEPEST = 20  # levels; a model file needs five

_TAB_INDENT = re.compile(r"^ *(?:- *)*\t")
# YAML 1.1 takes 1e-3 for a text, for want of a dot.
EXPONENT = re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_PLAIN_TYPES = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_STANDARD_TAG = re.compile(r"^tag:yaml\.org,2002:\w+$")
_NULL = "tag:yaml.org,2002:null"


class Absent:
    """The value of a node that was refused; its error is already noted."""


ABSENT = Absent()


def _refused(problem: str, at: yaml.Event | Node) -> yaml.MarkedYAMLError:
    mark: Any = at.start_mark  # of the C parser's type too, as far as the type checker knows
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses aliases and deep nesting on the way."""

    depth = 0

    @override
    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused("aliases (*name) are not supported", event)
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refused("this is nested too deeply", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and not _STANDARD_TAG.match(node.tag):
            raise _refused(f"the type {node.tag} has no use here", node)
        return node


def compose(text: str, file_name: str) -> Node | None:
    """The root node of a document; None when it is empty.

    Raises:
        ModelsYAMLInvalid: too large, or no YAML.
    """
    if len(text.encode("utf-8", errors="replace")) > LARGEST_FILE:
        raise ModelsYAMLInvalid([(file_name, f"is larger than {LARGEST_FILE // 1024**2} MiB")])
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as exc:
        raise ModelsYAMLInvalid([_syntax_error(exc, text, file_name)]) from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise ModelsYAMLInvalid([(f"{file_name} line {line}", "a character that YAML does not allow")]) from exc
    except (ValueError, OverflowError) as exc:  # PyYAML lets them through for escapes such as "\UFFFFFFFF"
        line = loader.line + 1 if loader else 1
        raise ModelsYAMLInvalid([(f"{file_name} line {line}", "this is not valid YAML")]) from exc
    finally:
        if loader:
            loader.dispose()


def _syntax_error(exc: yaml.MarkedYAMLError, text: str, file_name: str) -> tuple[str, str]:
    mark = exc.problem_mark or exc.context_mark
    line = mark.line if mark else 0
    lines = text.splitlines()
    # The parser stumbles over a tab where it stands or on the line behind it.
    for number in (line, line - 1):
        if 0 <= number < len(lines) and _TAB_INDENT.match(lines[number]):
            return f"{file_name} line {number + 1}", "a tab is used to indent; YAML allows spaces only"
    problem = " ".join(part for part in (exc.context, exc.problem) if part)
    return f"{file_name} line {line + 1}", f"this is not valid YAML: {problem}"


class Notes:
    """Reads nodes and collects what is wrong with them, each with its place."""

    def __init__(self, file_name: str) -> None:
        self._file_name = file_name
        self.errors: list[tuple[int, str, str]] = []  # (line, place, message)

    def add(self, node: Node, path: str, message: str) -> Absent:
        """Note an error at a node."""
        line = node.start_mark.line + 1
        place = f"{self._file_name} line {line}"
        self.errors.append((line, printable(f"{place}, {path}" if path else place), printable(message)))
        return ABSENT

    def raise_any(self) -> None:
        """Raise what was noted, in the order of lines.

        Raises:
            ModelsYAMLInvalid: something was.
        """
        if self.errors:
            in_order = sorted(self.errors, key=lambda error: error[0])
            raise ModelsYAMLInvalid([(place, message) for _, place, message in in_order])

    def mapping(self, node: Node, path: str, known: Collection[str] | None = None) -> dict[str, Node]:
        """The nodes of a mapping by key. Notes what is no mapping, keys given twice, and unknown keys (left out)."""
        if not isinstance(node, MappingNode):
            self.add(node, path, f"must be a mapping (key: value) {_got_node(node)}")
            return {}
        values: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else ""
            where = f"{path}.{key}" if path else key
            if not key:
                self.add(key_node, path, "a key must be a plain word")
            elif key in lines:
                self.add(key_node, where, f"given twice; first on line {lines[key]}")
            elif known is not None and key not in known:
                self.add(key_node, where, unknown_key_text(key, known))
            else:
                values[key] = value_node
            lines.setdefault(key, key_node.start_mark.line + 1)
        return values

    def sequence(self, node: Node, path: str) -> list[Node]:
        """The nodes of a list."""
        if not isinstance(node, SequenceNode):
            self.add(node, path, f"must be a list {_got_node(node)}")
            return []
        return list(node.value)

    def text(self, node: Node, path: str) -> str | Absent:
        """A text. A plain number or yes counts as the characters it is written with; nothing is an empty text."""
        if not isinstance(node, ScalarNode):
            return self.add(node, path, f"must be a text {_got_node(node)}")
        return "" if node.tag == _NULL else str(node.value)

    def plain(self, node: Node, path: str) -> Any:
        """A value as YAML understands it: text, number, yes or no, nothing, or a list of these."""
        if isinstance(node, SequenceNode):
            values = [self.plain(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
            return ABSENT if any(value is ABSENT for value in values) else values
        if not isinstance(node, ScalarNode) or node.tag not in _PLAIN_TYPES:
            return self.add(node, path, f"must be a plain value {_got_node(node)}")
        if node.style is None and EXPONENT.match(node.value):
            return float(node.value)
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (ValueError, KeyError, IndexError, OverflowError, yaml.YAMLError):
            return self.add(node, path, f"cannot be read as a {node.tag.rpartition(':')[2]} {_got_node(node)}")


def _got_node(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "(got a mapping)"
    return "(got a list)" if isinstance(node, SequenceNode) else got(node.value)
