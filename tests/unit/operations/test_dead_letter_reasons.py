"""The reasons that commands and metrics know are those that the code gives."""

import ast
from pathlib import Path
from typing import Any, cast

import pytest

from connectors.operations import dead_letter_reasons
from connectors.operations.dead_letter_reasons import KNOWN
from connectors.operations.dead_letter_service import DeadLetterService
from connectors.operations.dead_letters import BOTH, Filters
from schemas.errors import Rejected
from schemas.reasons import INGRESS_REASONS, INGRESS_RULE_REASONS
from tests.support.pages import whole_page
from tests.support.reasons_of_code import calls, reason_texts

ROOT = Path(__file__).parents[3]
#: Where the meter's rules are, and what reads money and moments for them.
RULES = ("streams/core/metering/", "schemas/money", "schemas/moments")
INGRESS = "connectors/ingest/"


def given(*places: str) -> dict[str, str]:
    """Each reason for which these modules reject a call, with one line that gives it."""
    return {
        reason: where
        for where, call in calls("Rejected", "Refused", "InvalidElement")
        if where.startswith(places)
        for reason in reason_texts(where, call.args[0])
    }


def imported(module: Path) -> set[str]:
    """The modules of rules that a module imports, as paths."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {f"{name.replace('.', '/')}.py" for name in names if name.replace(".", "/").startswith(RULES)}


def rules_of_the_ingress() -> set[str]:
    """The modules of rules that the ingress imports, and those that they import."""
    found: set[str] = set()
    more = {path for module in (ROOT / INGRESS).glob("*.py") for path in imported(module)}
    while more:
        found |= more
        more = {path for module in more for path in imported(ROOT / module)} - found
    return found


def test_every_reason_for_a_rejection_is_known_to_the_commands() -> None:
    """Reasons of the meter and the ingress, read from the code."""
    reasons = given(*RULES, INGRESS)
    assert {"not_a_call", "too_many_held", "bad_time"} <= reasons.keys()  # of a constant, of a constant, of a schema
    assert {reason: where for reason, where in reasons.items() if reason not in KNOWN} == {}


def test_every_reason_of_an_ingress_rule_has_a_counter_that_starts_at_zero() -> None:
    """A reason in neither list of `schemas/reasons.py` is invisible to an alarm until its second call."""
    rules = rules_of_the_ingress()
    assert {"streams/core/metering/cost_fields.py", "schemas/moments.py"} <= rules
    assert "streams/core/metering/fold.py" not in rules
    counted = {*INGRESS_REASONS, *INGRESS_RULE_REASONS}
    assert {reason: where for reason, where in given(*rules, INGRESS).items() if reason not in counted} == {}


def test_every_known_reason_is_explained() -> None:
    assert [reason for reason in sorted(KNOWN) if f"`{reason}`" not in whole_page("errors.md")] == []


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_requeue_over_http_of_a_reason_that_no_dead_letter_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, *, dry_run: bool
) -> None:
    """As the command refuses it: `0 requeued` would look like success."""
    monkeypatch.setattr(dead_letter_reasons, "found_letters", lambda *_: [])
    service = DeadLetterService(cast("Any", None), None)
    for reason, said in (
        ("negativ_cost", "did you mean negative_cost?"),
        ("no_mapping", "usage is held for it, see `meterbridge held list --reason no_mapping`."),
        ("unpriced", "counted calls are not billed for it, see `meterbridge reconcile`."),
        ("z" * 100_000, f"{'z' * 60!r}: Reasons are"),
    ):
        with pytest.raises(Rejected) as refused:
            await service.requeue(BOTH, Filters(reason), 1, "", "key", dry_run=dry_run)
        assert refused.value.reason == "unknown_reason" and said in refused.value.detail
        assert len(refused.value.detail) < 2000
