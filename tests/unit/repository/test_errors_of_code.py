"""Every reason the code can give and every sentence a command can end with stands in docs/errors.md."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
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
SENTENCES = ("fail", "_fail")


@cache
def called() -> list[tuple[str, ast.Call]]:
    """Every call of a name in the product, and its place; the sandbox answers as Lago does, in Lago's words."""
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
        texts = _texts(arguments[0]) if arguments else []
        found += [(where, text) for text in texts if text.replace("_", "").isalpha()]
    return found


def _texts(expression: ast.expr) -> list[str]:
    parts = [part.value for part in ast.walk(expression) if isinstance(part, ast.Constant)]
    return [part for part in parts if isinstance(part, str)]


def sentences() -> list[tuple[str, str]]:
    """Each sentence with a gap where the user's own word stands; what is handed on is a reason."""
    told = [(where, "...".join(_texts(call.args[0]))) for where, call in calls(*SENTENCES)]
    return [(where, sentence) for where, sentence in told if sentence]


def test_there_is_much_to_compare() -> None:
    assert len(reasons()) > 60
    assert len(sentences()) > 15


def test_every_reason_is_on_the_page() -> None:
    assert [(where, reason) for where, reason in reasons() if f"`{reason}`" not in PAGE] == []


def test_every_sentence_of_a_command_is_on_the_page() -> None:
    """A row's first cell holds words of the sentence."""
    cells = [line.split("|")[1].replace("`", "") for line in PAGE.splitlines() if line.startswith("|")]
    told = [said for cell in cells for said in cell.strip().split(": ") if len(said) > 6]
    assert [one for one in sentences() if not any(said in one[1] for said in told)] == []
