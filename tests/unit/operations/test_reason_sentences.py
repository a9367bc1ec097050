"""A command that prints a reason also prints what it means."""

from connectors.cli.backfill import _table as backfilled
from connectors.cli.dlq import _done_text
from connectors.operations.backfill import NO_START
from connectors.operations.backfill_report import BackfillReport, report_as_object
from connectors.operations.dead_letter_reasons import KNOWN
from connectors.operations.reason_sentences import SENTENCES, meanings
from connectors.operations.requeue_judge import RequeueResult
from connectors.operations.usage_log import FORGOTTEN, INCOMPLETE, NAMELESS
from streams.core.mapping.held_reasons import HELD_REASONS
from tests.support.pages import whole_page


def test_every_reason_of_usage_has_a_sentence() -> None:
    reasons = {*KNOWN, *HELD_REASONS, FORGOTTEN, INCOMPLETE, NAMELESS, NO_START}
    assert set(SENTENCES) == reasons


def test_the_cause_and_the_next_step_of_each_of_them_are_on_the_page() -> None:
    """A command says in a few words what a reason means; the page says the rest."""
    page = whole_page("errors.md")
    assert [reason for reason in SENTENCES if f"| `{reason}`" not in page and f", `{reason}`" not in page] == []


def test_each_reason_is_explained_once() -> None:
    assert meanings(["no_mapping", "http_503", "no_mapping"]) == "no_mapping: the customer has no mapping."
    assert meanings(["http_503"]) == ""


def test_a_refused_row_of_a_backfill_names_the_field_that_is_missing() -> None:
    """Earlier it said `no_start` alone."""
    done = BackfillReport(read=1)
    done.refuse("line 2 z1", NO_START)
    said = backfilled(report_as_object(done), done, True)
    assert "refused: line 2 z1: no_start" in said and "add `startTime`" in said


def test_a_dead_letter_that_cannot_be_requeued_says_why() -> None:
    done = RequeueResult()
    done.refuse("usage_pruned", 2)
    assert "usage_pruned: the usage log of the call's month was pruned." in _done_text(done)
