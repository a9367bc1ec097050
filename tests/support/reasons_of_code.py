"""Every reason that the code can give, read from where it raises its errors."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The error and the place of its reason among the arguments.
RAISED = {
    "Rejected": 0,
    "Unavailable": 0,
    "TopicProblem": 0,
    "LedgerBroken": 0,
    "LagoUnavailable": 0,
    "LagoRejected": 0,
    "Refused": 0,
    "Problem": 1,
    "try_again": 0,
}

_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")


@cache
def called() -> list[tuple[str, ast.Call]]:
    """Return every call of a name in the product, and its place; the sandbox answers as Lago does, in Lago's words."""
    found = []
    for top in ("schemas", "streams", "connectors"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if "sandbox" not in path.parts and "demo" not in path.parts:
                tree, where = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT)
                nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
                found += [(f"{where}:{node.lineno}", node) for node in nodes if isinstance(node.func, ast.Name)]
    return found


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    for where, call in called():
        if isinstance(call.func, ast.Name) and call.func.id in names:
            yield where, call


def reasons() -> list[tuple[str, str]]:
    found = []
    for where, call in calls(*RAISED):
        assert isinstance(call.func, ast.Name)
        place = RAISED[call.func.id]
        arguments = call.args[place : place + 1]
        texts = reason_texts(where, arguments[0]) if arguments else []
        found += [(where, text) for text in texts if text.replace("_", "").isalpha()]
    return found


def reason_texts(where: str, expression: ast.expr) -> list[str]:
    """The texts in an expression, also those of the constants that it names. `where`: the place of the call in the product."""
    names = {part.id for part in ast.walk(expression) if isinstance(part, ast.Name) and _CONSTANT.fullmatch(part.id)}
    module = import_module(where.partition(".py:")[0].replace("/", ".")) if names else None
    constants = [getattr(module, name, None) for name in sorted(names)]
    return [*texts_of(expression), *(value for value in constants if isinstance(value, str))]


def texts_of(expression: ast.expr) -> list[str]:
    parts = [part.value for part in ast.walk(expression) if isinstance(part, ast.Constant)]
    return [part for part in parts if isinstance(part, str)]
