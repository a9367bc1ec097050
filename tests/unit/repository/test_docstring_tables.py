"""Tables in docstrings are Markdown, so each row is one line."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDERS = ("schemas", "streams", "connectors", "bench", "deploy", "tests")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def rows(docstring: str) -> Iterator[str]:
    """The lines below the separator of each table, up to an empty line."""
    inside = False
    for line in docstring.splitlines():
        inside = bool(line) and (inside or line.startswith(("|---", "| ---")))
        if inside:
            yield line


def docstrings() -> Iterator[tuple[str, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
                    yield path.relative_to(ROOT).as_posix(), text


def test_every_row_of_a_table_in_a_docstring_is_one_line() -> None:
    found = [(path, row) for path, text in docstrings() for row in rows(text)]
    assert len(found) > 5
    assert [one for one in found if not (one[1].startswith("|") and one[1].endswith("|"))] == []
