"""Reads values.yaml: each key with its default and with the comment above it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

_KEY: Final = re.compile(r"^( *)([\w.-]+):( |$)")
_BEGINS: Final = re.compile(r"^ *# -- (.*)$")
_GOES_ON: Final = re.compile(r"^ *# (.*)$")


@dataclass(frozen=True, slots=True)
class Value:
    """A key of values.yaml.

    Fields:
        path: the names from the top, e.g. `("image", "tag")`.
        default: as YAML reads it.
        meaning: the comment above the key that begins with `# --`; `""` = none.
    """

    path: tuple[str, ...]
    default: Any
    meaning: str

    @property
    def name(self) -> str:
        """The path as Helm's `--set` takes it."""
        return ".".join(self.path)


def values_of(text: str) -> list[Value]:
    """Every key of a values file, in its order; keys of flow maps (`{a: 1}`) have no comments."""
    comments = dict(_comments(text))
    return [Value(path, default, comments.get(path, "")) for path, default in _walk((), yaml.safe_load(text))]


def _walk(path: tuple[str, ...], node: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in node.items():
        yield (*path, name), value
        if isinstance(value, dict):
            yield from _walk((*path, name), value)


def _comments(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of each key that stands at the beginning of a line, with its comment."""
    above: list[tuple[int, str]] = []
    meaning: list[str] = []
    for line in text.splitlines():
        if begun := _BEGINS.match(line):
            meaning = [begun[1]]
        elif meaning and (more := _GOES_ON.match(line)):
            meaning.append(more[1])
        elif key := _KEY.match(line):
            depth = len(key[1])
            above = [(column, name) for column, name in above if column < depth] + [(depth, key[2])]
            yield tuple(name for _, name in above), " ".join(meaning)
            meaning = []
        else:
            meaning = []
