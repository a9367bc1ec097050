"""A regular expression means the same in every Python that the product says it runs on."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

#: The end of a possessive group, with what is before it.
_END = re.compile(r".{0,5}\)(?:\*|\+|\?|\{[\d,]+\})\+", re.DOTALL)
_PRODUCT = ("connectors", "schemas", "streams")


def _unsafe(text: str) -> list[str]:
    """Return the ends of possessive groups in a pattern without a last alternative that fails at once."""
    return [end for end in _END.findall(text) if not end.startswith("|(?!))")]


def test_a_possessive_group_ends_with_an_alternative_that_fails_at_once() -> None:
    """Python before 3.11.5, the one of Debian 12 among them, continues behind such a group where its last, incomplete
    repetition gave up (https://github.com/python/cpython/issues/106052).
    """
    groups, unsafe = 0, []
    for path in (path for folder in _PRODUCT for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                groups += len(_END.findall(text))
                unsafe += [f"{path.relative_to(ROOT)}:{node.lineno}: {end}" for end in _unsafe(text)]
    assert groups
    assert not unsafe


@pytest.mark.parametrize("pattern", ["(?:ab)*+", "(?:ab|c)++", "(?:ab)?+", "(?:ab){2,3}+"])
def test_a_group_without_it_is_found(pattern: str) -> None:
    assert _unsafe(pattern)


@pytest.mark.parametrize("pattern", ["(?:ab|(?!))*+c", "[^a]*+(?:ab|(?!))++", "(?:ab)*"])
def test_other_groups_are_not(pattern: str) -> None:
    assert not _unsafe(pattern)
