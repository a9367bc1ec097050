"""The reasons that a command knows are those that the code gives."""

import ast
from pathlib import Path

from connectors.operations.dead_letter_reasons import KNOWN
from tests.support.pages import whole_page
from tests.unit.repository.test_errors_of_code import calls

ROOT = Path(__file__).parents[3]


def test_every_reason_by_which_a_call_is_refused_is_known_to_the_commands() -> None:
    """Reasons of the meter and the ingress, as they stand in the code."""
    given = set()
    for where, call in calls("Rejected", "Refused"):
        if where.startswith(
            (
                "streams/core/metering/normalise",
                "streams/core/metering/fold",
                "schemas/money",
                "connectors/ingest",
            )
        ):
            first = call.args[0]
            texts = [part.value for part in ast.walk(first) if isinstance(part, ast.Constant)]
            given |= {text for text in texts if isinstance(text, str)}
    assert len(given) > 5
    assert given <= KNOWN


def test_every_known_reason_is_explained() -> None:
    assert [reason for reason in sorted(KNOWN) if f"`{reason}`" not in whole_page("errors.md")] == []
