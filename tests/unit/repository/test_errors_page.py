"""docs/errors.md has every reason that the sink can give, and what to do about it."""

import re
from pathlib import Path

import pytest

from connectors.operations.dead_letter_reasons import KNOWN
from schemas.reasons import INGRESS_REASONS
from streams.core.delivery.verdicts import (
    HttpResponse,
    RefusedEvents,
    RetryLater,
    lookup_failed,
    unanswered,
    verdict_on_batch,
)
from streams.core.mapping import held_reasons
from streams.core.mapping.held_reasons import HELD_REASONS
from streams.core.metering.decisions import DECISIONS
from tests.support.pages import whole_page

ROOT = Path(__file__).parents[3]
PAGE = whole_page("errors.md")
#: The modules whose public text constants are the reasons why usage is held, and nothing else.
#: Of the client and the wire: connectors/lago/client.py.
WIRE = {"connect", "timeout", "no_answer", "bad_answer"}


def rows(heading: str) -> dict[str, list[str]]:
    """Code to the cells of its row, of one chapter; `http_301` to `http_308` and the like as written."""
    chapter = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    found = {}
    for line in chapter.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|"):
            found |= dict.fromkeys(re.findall(r"`([a-z_0-9<>]+)`", cells[0]), cells)
    return found


def reasons_of_answers() -> set[str]:
    """Every reason in the answer table, for each status alone."""
    found = set()
    for error in (
        '{"transaction_id":["value_is_mandatory"]}',
        '{"code":["value_is_mandatory"]}',
        '{"timestamp":["invalid_format"]}',
        '{"base":["lock_acquisition_failed"]}',
        '"expression_evaluation_failed: x"',
        '{"odd":["odd"]}',
    ):
        verdict = verdict_on_batch(HttpResponse(422, {}, b'{"error_details":{"0":%b}}' % error.encode()), 1)
        assert isinstance(verdict, RefusedEvents)
        found |= {mark.reason for mark in verdict.marks.values()}
    for status in (200, 400, 413):
        verdict = verdict_on_batch(HttpResponse(status, {}, b""), 1)
        found |= (
            {verdict.reason} if isinstance(verdict, RetryLater) else {mark.reason for mark in verdict.marks.values()}
        )  # type: ignore[union-attr]
    return found


def reasons_to_hold() -> set[str]:
    """The constants of the module in which a reason to hold usage begins, whether or not they are collected there."""
    return {
        text for text in vars(held_reasons).values() if isinstance(text, str) and text.islower() and text.isidentifier()
    }


def test_every_reason_to_hold_usage_is_counted_and_has_its_row() -> None:
    """A reason without a metric would be money that no dashboard shows."""
    assert reasons_to_hold() == set(HELD_REASONS)
    assert set(HELD_REASONS) - rows("Usage that waits: held").keys() == set()


def test_every_reason_of_the_ingress_has_its_row_and_is_known_to_the_commands() -> None:
    assert set(INGRESS_REASONS) - rows("A call that can never be billed").keys() == set()
    assert set(INGRESS_REASONS) <= KNOWN


def test_every_decision_about_a_call_is_explained() -> None:
    page = (ROOT / "docs" / "litellm.md").read_text(encoding="utf-8")
    assert [one for one in DECISIONS if f"`{one}`" not in page] == []


def test_every_reason_of_a_dead_letter_has_its_cause_and_the_next_command() -> None:
    known = rows("A Lago event that failed")
    missing = (reasons_of_answers() | WIRE - {"connect"} | {"id_conflict", "unconfirmed", "malformed"}) - known.keys()
    assert not missing
    assert "http_<status>" in known
    assert not [code for code, cells in known.items() if "`meterbridge " not in cells[-1]]


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 408, 415, 429])
def test_every_status_that_holds_all_events_has_its_cause(status: int) -> None:
    assert f"http_{status}" in rows("Lago takes nothing")


def test_every_connection_error_is_listed_with_the_reasons_of_an_open_breaker() -> None:
    known = rows("Lago takes nothing")
    assert WIRE | {"unhealthy"} <= known.keys()
    assert {unanswered(reason).reason for reason in WIRE} == {lookup_failed(reason).reason for reason in WIRE}


def test_every_reason_that_halts_a_sink_partition_is_on_the_page() -> None:
    assert {"offset_out_of_range", "not_open"} <= rows("A partition task that has halted").keys()
