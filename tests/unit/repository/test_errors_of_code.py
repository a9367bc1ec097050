"""Every reason the code can give and every sentence a command can end with stands in docs/errors.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the product; the sandbox answers as Lago does, in Lago's words."""
    for top in ("schemas", "streams", "connectors"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if "sandbox" not in path.parts and "demo" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    for where, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield f"{where}:{node.lineno}", node


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


@pytest.mark.parametrize(("where", "reason"), reasons())
def test_every_reason_is_on_the_page(where: str, reason: str) -> None:
    assert f"`{reason}`" in PAGE, where


@pytest.mark.parametrize(("where", "sentence"), sentences())
def test_every_sentence_of_a_command_is_on_the_page(where: str, sentence: str) -> None:
    """A row's first cell holds words of the sentence."""
    cells = [line.split("|")[1].replace("`", "") for line in PAGE.splitlines() if line.startswith("|")]
    assert any(len(said) > 6 and said in sentence for cell in cells for said in cell.strip().split(": ")), (
        where,
        sentence,
    )
