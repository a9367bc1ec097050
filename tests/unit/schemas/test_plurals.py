"""A noun after a number in a message has the right form, singular or plural."""

import ast
import re
from pathlib import Path

import pytest

from schemas.plurals import numbered

ROOT = Path(__file__).parents[3]
#: Nouns that are counted in what commands print.
NOUNS = "calls|deliveries|subscriptions|events|lines|customers|rows|windows|keys|topics|records|accounts|transactions|repeats"
#: Where a number is never 1, or a sentence is not for people: the file, and the noun.
EXCEPTIONS = {
    ("connectors/cli/explain.py", "calls"),
    ("connectors/api/mapping_import.py", "lines"),
    ("connectors/api/mapping_import.py", "rows"),
    ("connectors/access/provider_keys/store.py", "keys"),
    ("connectors/access/key_store.py", "keys"),
    ("connectors/ingest/store.py", "calls"),
    ("connectors/operations/user_orgs.py", "rows"),
    ("connectors/operations/recovery_at_lago.py", "events"),
    ("streams/core/delivery/verdicts.py", "events"),
}


@pytest.mark.parametrize(
    ("count", "one", "many", "text"),
    [
        (0, "call", "", "0 calls"),
        (1, "call", "", "1 call"),
        (2, "call", "", "2 calls"),
        (1, "delivery", "", "1 delivery"),
        (5, "delivery", "", "5 deliveries"),
        (2, "key", "", "2 keys"),
        (1, "row was", "rows were", "1 row was"),
        (3, "row was", "rows were", "3 rows were"),
    ],
)
def test_one_is_singular_and_all_others_are_plural(count: int, one: str, many: str, text: str) -> None:
    assert numbered(count, one, many) == text


def _plurals(path: Path) -> set[tuple[str, str]]:
    """The plural nouns that follow a number in an f-string of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.JoinedStr):
            continue
        for before, text in zip(node.values, node.values[1:], strict=False):
            counts = isinstance(before, ast.FormattedValue) and isinstance(text, ast.Constant)
            if counts and (match := re.match(rf" ({NOUNS})\b", str(getattr(text, "value", "")))):
                found.add((str(path.relative_to(ROOT)), match[1]))
    return found


def test_no_message_has_a_plural_noun_after_a_number_that_may_be_one() -> None:
    files = [path for folder in ("connectors", "streams") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    assert set().union(*map(_plurals, files)) == EXCEPTIONS
