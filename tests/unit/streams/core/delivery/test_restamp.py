"""An event that waited over the border of a billing period is posted with a time that Lago still bills, exactly once."""

import json

import msgspec
import pytest

from schemas.customers import OrgRecord, Period
from schemas.moments import SECOND_US
from schemas.policy import OutOfPeriodPolicy
from schemas.records import LagoEvent
from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.restamp import INVOICED_PERIOD, RestampDecision, moved_from, restamp_decision
from streams.core.mapping.held_reasons import ENDED
from tests.support.scripted_lago import ScriptedLago
from tests.support.sink import Sink, kinds_and_reasons
from tests.support.virtual_time import run_virtually, virtual_now

OCTOBER, NOVEMBER, DECEMBER = 1_790_812_800, 1_793_491_200, 1_796_083_200
LATE = f"{NOVEMBER - 5}.250"
ORGS = {"org": OrgRecord("org", periods=(Period("sub_1", OCTOBER * SECOND_US, interval="monthly"),))}


def value(transaction_id: str = "a", timestamp: str = LATE, org_id: str = "org") -> bytes:
    properties = {"unit": "7", "org_id": org_id}
    return msgspec.json.encode(LagoEvent(transaction_id, "sub_1", "llm_cost", timestamp, "1.25", properties))


def at(
    seconds: float, late: OutOfPeriodPolicy = OutOfPeriodPolicy.SHIFT, orgs: dict[str, OrgRecord] = ORGS, **of: str
) -> RestampDecision:
    return restamp_decision(value(**of), orgs, late, round(seconds * SECOND_US))


def test_within_its_billing_period_an_event_is_posted_unchanged() -> None:
    assert at(NOVEMBER - 1) == RestampDecision(value())


def test_after_the_border_it_keeps_its_id_and_has_the_usages_time_as_a_property() -> None:
    moved = at(NOVEMBER)
    before, after = json.loads(value()), json.loads(moved.value)
    assert after.pop("timestamp") == moved.timestamp == f"{NOVEMBER}.000"
    assert after["properties"].pop("usage_end") == "2026-10-31T23:59:55.250000Z"
    assert after == {name: content for name, content in before.items() if name != "timestamp"}
    assert at(NOVEMBER + 9) == moved
    assert at(DECEMBER).timestamp == f"{DECEMBER}.000"


def test_an_event_of_an_unknown_subscription_is_posted_unchanged() -> None:
    assert at(NOVEMBER, orgs={}) == RestampDecision(value())
    assert at(NOVEMBER, org_id="other") == RestampDecision(value(org_id="other"))
    assert restamp_decision(b"no event", ORGS, OutOfPeriodPolicy.SHIFT, 0) == RestampDecision(b"no event")


def test_with_the_policy_hold_it_is_refused_and_after_the_end_always() -> None:
    assert at(NOVEMBER, OutOfPeriodPolicy.HOLD).refused == INVOICED_PERIOD
    over = {"org": OrgRecord("org", periods=(Period("sub_1", OCTOBER * SECOND_US, (NOVEMBER + 5) * SECOND_US),))}
    assert at(NOVEMBER + 4, orgs=over) == RestampDecision(value())
    assert at(NOVEMBER + 5, orgs=over).refused == ENDED


def test_a_moved_event_is_recognised_by_everything_except_its_time() -> None:
    moved = msgspec.json.decode(at(NOVEMBER).value, type=LagoEvent)
    assert moved_from(moved, value()) == RestampDecision(value(), f"{NOVEMBER}.000")
    assert moved_from(moved, value(timestamp=f"{NOVEMBER - 6}.250")) is None
    assert moved_from(msgspec.json.decode(value(), type=LagoEvent), value()) is None


def test_after_the_end_it_goes_to_the_orgs_next_subscription() -> None:
    end = (NOVEMBER + 5) * SECOND_US
    lives = (Period("sub_1", OCTOBER * SECOND_US, end), Period("sub_2", end + SECOND_US, interval="monthly"))
    orgs = {"org": OrgRecord("org", periods=lives)}
    moved = at(NOVEMBER + 9, orgs=orgs)
    posted = msgspec.json.decode(moved.value, type=LagoEvent)
    assert (posted.external_subscription_id, posted.transaction_id) == (moved.subscription, "a") == ("sub_2", "a")
    assert posted.timestamp == moved.timestamp == f"{NOVEMBER + 6}.000"
    assert moved_from(posted, value()) == moved._replace(value=value())
    assert at(NOVEMBER + 9, OutOfPeriodPolicy.HOLD, orgs).refused == INVOICED_PERIOD


@pytest.mark.parametrize(("currency", "refused"), [("USD", ""), ("EUR", ENDED)])
def test_an_event_never_goes_to_a_subscription_in_another_currency(currency: str, refused: str) -> None:
    """Its cents would be read in the other currency."""
    end = (NOVEMBER + 5) * SECOND_US
    lives = (Period("sub_1", OCTOBER * SECOND_US, end), Period("sub_2", end + SECOND_US))
    found = at(NOVEMBER + 9, orgs={"org": OrgRecord("org", currency=currency, periods=lives)})
    assert (found.refused, found.subscription) == (refused, "" if refused else "sub_2")


def delivered(
    lago: ScriptedLago, *items: Item, starts: float, late: OutOfPeriodPolicy = OutOfPeriodPolicy.SHIFT
) -> list[EventOutcome]:
    """A delivery that starts `starts` seconds from the border of November; virtual time begins at 0."""

    def judge(event: bytes) -> RestampDecision:
        return restamp_decision(event, ORGS, late, round((NOVEMBER + starts + virtual_now()) * SECOND_US))

    async def main() -> list[EventOutcome]:
        return await Sink(lago).delivery.deliver(items, judge=judge)

    return run_virtually(main())


def test_events_of_an_outage_over_the_end_of_the_month_are_billed_in_the_new_month() -> None:
    """
    23:59:50      border
       |------------|-----x Lago answers again
       429   429   429   200
    """
    lago = ScriptedLago(fault=lambda _number, _ids: "429" if virtual_now() < 30 else None)
    outcomes = delivered(lago, Item("a", value(), resent=False), starts=-10)
    assert kinds_and_reasons(outcomes) == [("delivered", "accepted")]
    assert [one.timestamp for one in lago.store] == [outcomes[0].timestamp] == [f"{NOVEMBER}.000"]
    assert lago.look_ups == []
    before = [body for body in lago.bodies if LATE.encode() in body]
    assert len(set(lago.bodies)) == 2 and len(set(before)) == 1


def test_an_event_that_may_be_stored_already_is_looked_up_before_it_is_moved() -> None:
    """It was stored before the border without an answer: it is on the old invoice, and no second copy is made."""
    lago = ScriptedLago(fault=lambda number, _ids: "timeout after storing" if number == 0 else None)
    outcomes = delivered(lago, Item("a", value(), resent=False), starts=-0.005)
    assert kinds_and_reasons(outcomes) == [("delivered", "confirmed")]
    assert [one.timestamp for one in lago.store] == [LATE]
    assert (lago.look_ups, outcomes[0].timestamp) == (["a"], "")


def test_an_event_that_is_not_stored_is_moved_after_the_lookup() -> None:
    lago = ScriptedLago(fault=lambda number, _ids: "timeout" if number == 0 else None)
    assert kinds_and_reasons(delivered(lago, Item("a", value(), resent=False), starts=-0.005)) == [
        ("delivered", "accepted")
    ]
    assert [one.timestamp for one in lago.store] == [f"{NOVEMBER}.000"]
    assert lago.look_ups == ["a"]


@pytest.mark.parametrize("stored", [value(), at(NOVEMBER).value])
def test_the_next_owner_finds_the_event_of_the_first_moved_or_not(stored: bytes) -> None:
    lago = ScriptedLago(store=[msgspec.json.decode(stored, type=LagoEvent)])
    outcomes = delivered(lago, Item("a", value(), resent=True), starts=5)
    assert kinds_and_reasons(outcomes) == [("delivered", "confirmed")]
    assert len(lago.store) == 1
    assert outcomes[0].timestamp == ("" if stored == value() else f"{NOVEMBER}.000")


def test_a_failed_lookup_is_repeated_and_nothing_is_posted_meanwhile() -> None:
    lago = ScriptedLago(look_up_fails=lambda _id: virtual_now() < 20)
    assert kinds_and_reasons(delivered(lago, Item("a", value(), resent=True), starts=5)) == [("delivered", "accepted")]
    assert len(lago.store) == len(lago.posts) == 1


def test_with_the_policy_hold_it_becomes_a_dead_letter_and_the_others_are_posted() -> None:
    lago = ScriptedLago()
    fresh = Item("b", value("b", f"{NOVEMBER + 1}.000"), resent=False)
    outcomes = delivered(lago, Item("a", value(), resent=False), fresh, starts=5, late=OutOfPeriodPolicy.HOLD)
    assert kinds_and_reasons(outcomes) == [("dead", INVOICED_PERIOD), ("delivered", "accepted")]
    assert [one.transaction_id for one in lago.store] == ["b"]


def test_many_events_over_the_border_are_each_stored_once() -> None:
    lago = ScriptedLago(fault=lambda number, _ids: "500 after storing" if number % 3 == 0 else None)
    items = [Item(f"t{n}", value(f"t{n}"), resent=n % 2 == 0) for n in range(250)]
    assert {one.kind for one in delivered(lago, *items, starts=-0.02)} == {"delivered"}
    assert sorted(one.transaction_id for one in lago.store) == sorted(f"t{n}" for n in range(250))
