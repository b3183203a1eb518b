"""Strict YAML: a subset without surprises, every value with its line and column.

Refused: several documents, anchors and aliases (they can grow without bound), explicit tags, keys that are not text,
repeated keys, more than 16 levels, integers over 64 bits, files over 1 MiB. What a scalar means is YAML 1.1 by
PyYAML's safe resolver, but that only true and false are truths, as in YAML 1.2: `on` and `no` are text (ADR 0007).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from yaml import nodes

from bus.errors import PolicyError

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 16
MAX_BITS: Final = 64
_DEEP: Final = re.compile(rf"(?:[\[{{][^\[\]{{}}]*){{{MAX_DEPTH + 1}}}")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the truths of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))
Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: plain values, and (line, column) by path, from 1. Key positions stand under path + ("~key",)."""

    file: str
    value: Any
    marks: dict[Path_, tuple[int, int]] = field(repr=False)

    def at(self, path: Path_) -> tuple[int, int]:
        """Position of ``path``, or of the nearest enclosing value that has one."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, (1, 1))

    def error(self, path: Path_, message: str, *, nearest: str = "", key: bool = False) -> PolicyError:
        """A PolicyError at ``path`` (at its key with ``key``)."""
        line, column = self.marks.get((*path, "~key"), self.at(path)) if key else self.at(path)
        hint = f"did you mean {nearest}?" if nearest else ""
        return PolicyError(message, file=self.file, line=line, column=column, nearest=nearest, hint=hint)


def read(path: Path, name: str = "") -> Document:
    """Parse a file. Raises PolicyError(parsed=False) where it cannot be read or is not YAML of this subset."""
    name = name or path.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror}", file=str(path), parsed=False) from error
    if len(data) > MAX_BYTES:
        raise PolicyError(f"expected at most {MAX_BYTES} bytes, found {len(data)}", file=name, parsed=False)
    return parse(data, name)


def parse(data: bytes, name: str) -> Document:
    """Parse bytes; see ``read``."""
    try:
        text = data.decode("utf-8")
        if _DEEP.search(text):  # before the parser sees it: its time grows with the square of the depth
            raise PolicyError(f"nested more than {MAX_DEPTH} deep", file=name, parsed=False)
        loader = _Loader(text)
        _refuse_tricks(text, name)
        node = loader.get_single_node()
        if node is None:
            raise PolicyError("expected a mapping, found an empty file", file=name, parsed=False)
        marks: dict[Path_, tuple[int, int]] = {}
        return Document(name, _build(loader, node, (), marks, name), marks)
    except UnicodeDecodeError as error:
        raise PolicyError(f"expected UTF-8, found byte {error.start} that is not", file=name, parsed=False) from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise PolicyError(f"cannot be parsed: {problem}", file=name, line=line, column=column, parsed=False) from None


def _refuse_tricks(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        mark, tag = event.start_mark, getattr(event, "tag", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        trick = ""
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            trick = "anchors and aliases are not allowed"
        elif tag:  # only a tag that was written out is set here
            trick = f"tag {tag} is not allowed"
        elif depth > MAX_DEPTH:
            trick = f"nested more than {MAX_DEPTH} deep"
        if trick:
            raise PolicyError(trick, file=name, line=line, column=column, parsed=False)


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        value.encode()  # half characters are written as escapes: no text
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError(f"a number of {value.bit_length()} bits")
    return value


def _build(loader: Any, node: nodes.Node, path: Path_, marks: dict[Path_, tuple[int, int]], name: str) -> Any:
    marks[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, nodes.SequenceNode):
        return [_build(loader, each, (*path, i), marks, name) for i, each in enumerate(node.value)]
    if not isinstance(node, nodes.MappingNode):
        try:
            return _bounded(loader.construct_object(node))
        except (ValueError, OverflowError):  # what looks like a date or a number and is none
            line, column = marks[path]
            raise PolicyError("an impossible date or number", file=name, line=line, column=column) from None
    value: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        key = loader.construct_object(key_node) if isinstance(key_node, nodes.ScalarNode) else None
        if not isinstance(key, str):
            raise PolicyError(f"expected a text key, found {key!r}", file=name, line=line, column=column)
        if key in value:
            raise PolicyError(f"key {key!r} is given twice", file=name, line=line, column=column)
        value[key] = _build(loader, value_node, (*path, key), marks, name)
        marks[(*path, key, "~key")] = (line, column)
    return value
