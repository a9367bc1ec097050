"""Two LiteLLM callbacks that report one customer within an hour cause an alarm; a single callback never does."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import Position
from schemas.policy import MeterPolicy
from schemas.wire import CLOUDEVENT, FLAT, INTEGRATION, LAGO, METERED, SLP
from streams.core.mapping.resolve import Target
from streams.core.metering.duplicate_routes import MOST, WITHIN_MS, Routes
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from tests.support.calls import NOON, raw, slp

MINUTE_MS = 60_000


def test_two_callbacks_of_one_customer_are_reported_once_an_hour() -> None:
    """
    slp   | 0 min         | 3                | 64
    lago        | 1 min         | 4 min            | 65
    told        | x                                  | x
    """
    routes = Routes()
    result = []
    for minute, shape in ((0, SLP), (1, LAGO), (3, SLP), (4, LAGO), (64, SLP), (65, LAGO)):
        routes.saw(shape, "acme", minute * MINUTE_MS)
        result.append(routes.taken())
    assert [bool(one) for one in result] == [False, True, False, False, False, True]
    assert result[1] == [("acme", "lago", "litellm")]


def test_a_change_from_one_callback_to_another_is_not_reported_if_an_hour_lies_between() -> None:
    routes = Routes()
    routes.saw(LAGO, "acme", 0)
    routes.saw(SLP, "acme", WITHIN_MS)
    assert routes.taken() == []


@given(st.lists(st.tuples(st.sampled_from([SLP, FLAT]), st.sampled_from("ab"), st.integers(0, 10))))
def test_all_of_litellms_own_payloads_count_as_one_route(seen: list[tuple[str, str, int]]) -> None:
    routes = Routes()
    for shape, customer, minute in seen:
        routes.saw(shape, customer, minute * MINUTE_MS)
    assert routes.taken() == [] and not routes.watching


def test_customers_are_separate_and_metered_events_are_no_route() -> None:
    routes = Routes()
    for shape, customer in ((SLP, "a"), (LAGO, "b"), (CLOUDEVENT, "c"), (INTEGRATION, "d"), (METERED, "a")):
        routes.saw(shape, customer, 0)
    assert routes.taken() == []


def test_usage_without_a_customer_is_no_customer_of_two_routes() -> None:
    routes = Routes()
    for shape in (LAGO, SLP):
        routes.saw(shape, "unattributed:key:x", 0)
    assert routes.taken() == []


def test_memory_is_bounded() -> None:
    routes = Routes()
    for number in range(MOST + 500):
        routes.saw(LAGO, f"c{number}", 0)
        routes.saw(SLP, f"c{number}", 1)
    assert len(routes._last) == MOST and len(routes._seen_at_ms) == MOST


def test_the_fold_sees_two_routes_and_bills_as_before() -> None:
    fold = Fold(MeterPolicy(), "d-t-0-")
    lago = {
        "transaction_id": "t",
        "external_subscription_id": "acme",
        "timestamp": NOON // 1_000_000,
        "properties": {"response_cost": 1},
    }
    records = [raw(0, lago, shape="lago"), raw(1, slp(1)), raw(2, slp(2), customer="other")]
    changes = fold(LedgerState(Position()), records, lambda *_: Target("org", "sub"))
    assert changes.decisions["billable"] == 3
    assert fold.routes.taken() == [("acme", "lago", "litellm")]
