"""The demo succeeds only if every call and every cent that was sent was billed."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from connectors.demo.lago import BilledTotal
from connectors.demo.reconciliation import Reconciliation, reconcile
from connectors.demo.sample_orgs import CUSTOMERS, orgs_of
from connectors.demo.scraper import MetricsReading, reading
from connectors.demo.traffic import ExpectedBill
from schemas.ledger import Sum

ORGS = orgs_of("run")
CENT = Decimal("0.01")


def book() -> ExpectedBill:
    """Three calls of every customer for one cent each, ten cache hits, two repeats."""
    one = ExpectedBill(unbilled=Counter(cache_hit=10), repeats=2, delivered=36)
    one.billable = {customer: Sum(3, 3 * CENT) for customer in CUSTOMERS}
    return one


FAIR = BilledTotal({org.subscription: Sum(6, 6 * CENT) for org in ORGS}, events=12, posts=2)
CALM = MetricsReading(accepted=36, decisions={"billable": 24, "cache_hit": 10, "duplicate": 2, "byok": 0})


def end(bill: BilledTotal = FAIR, scraper: MetricsReading = CALM, sent: ExpectedBill | None = None) -> Reconciliation:
    return reconcile(ORGS, sent or book(), bill, scraper)


def short_of(amount: Sum) -> BilledTotal:
    return replace(FAIR, subscriptions={**FAIR.subscriptions, ORGS[1].subscription: amount})


def test_equal_sums_succeed_and_show_the_savings() -> None:
    assert end().exact
    assert end().verdict() == (
        "GREEN  24 calls in = 24 calls billed, 0.24 USD in = 0.24 USD billed (2 Lago posts instead of 24)"
    )


@pytest.mark.parametrize(
    "found",
    [
        end(short_of(Sum(5, 6 * CENT))),
        end(short_of(Sum(7, 6 * CENT))),
        end(short_of(Sum(6, 6 * CENT - Decimal("1E-12")))),
        end(short_of(Sum(6, 6 * CENT + Decimal("1E-12")))),
        end(replace(FAIR, subscriptions={**FAIR.subscriptions, "somebody-else": Sum(1, CENT)})),
        end(scraper=replace(CALM, decisions={**CALM.decisions, "duplicate": 1})),
        end(scraper=replace(CALM, decisions={**CALM.decisions, "duplicate": 3})),
        end(scraper=replace(CALM, decisions={**CALM.decisions, "cache_hit": 9})),
        end(scraper=replace(CALM, decisions={**CALM.decisions, "rejected": 1})),
        end(scraper=replace(CALM, off_by=1e-12)),
        end(scraper=replace(CALM, halted=1)),
    ],
    ids=[
        *("a call too few", "a call too many", "a trillionth too little", "a trillionth too much", "a stranger"),
        *("a repeat missed", "a call taken for a repeat", "a cache hit lost", "a call rejected"),
        *("books that do not add up", "a partition that stands still"),
    ],
)
def test_one_difference_fails_the_demo(found: Reconciliation) -> None:
    assert not found.exact
    assert found.verdict().startswith("RED")
    assert len(found.wrong) == 1


def test_two_orgs_whose_errors_cancel_fail_the_demo() -> None:
    """The totals alone would not show the error."""
    swapped = dict(FAIR.subscriptions)
    swapped[ORGS[0].subscription], swapped[ORGS[1].subscription] = Sum(5, 5 * CENT), Sum(7, 7 * CENT)
    assert len(end(replace(FAIR, subscriptions=swapped)).wrong) == 2


def test_posts_with_an_unknown_outcome_allow_as_many_repeats_and_no_more() -> None:
    unsure = replace(book(), unsure=5)
    for seen, exact in ((2, True), (7, True), (8, False)):
        scraper = replace(CALM, decisions={**CALM.decisions, "duplicate": seen})
        assert end(scraper=scraper, sent=unsure).exact is exact, seen


def test_the_demo_is_not_finished_while_a_call_a_window_or_an_event_is_open() -> None:
    calm = replace(CALM, sealed=12, settled=12)
    assert calm.at_rest
    for moving in (
        replace(calm, accepted=37),
        replace(calm, open_windows=1),
        replace(calm, held_windows=1),
        replace(calm, settled=11),
    ):
        assert not moving.at_rest


def test_the_metrics_of_several_processes_are_added() -> None:
    page = """# HELP meterbridge_calls_total Calls.
# TYPE meterbridge_calls_total counter
meterbridge_calls_total{decision="billable"} 4.0
meterbridge_calls_total{decision="duplicate"} 1.0
# TYPE lago_api_requests_total counter
lago_api_requests_total{method="POST",status="200"} 2.0
lago_api_requests_total{method="POST",status="500"} 1.0
lago_api_requests_total{method="GET",status="200"} 9.0
# TYPE meterbridge_event_transitions_total counter
meterbridge_event_transitions_total{status="completed"} 5.0
meterbridge_event_transitions_total{status="failed"} 1.0
meterbridge_event_transitions_total{status="pending"} 7.0
"""
    found = reading(f"{page}\n{page}")
    assert found.decisions == {"billable": 8, "duplicate": 2}
    assert (found.posts, found.settled) == (6, 12)
