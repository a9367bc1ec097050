"""Usage with a moment before the end of its subscription: what the last invoice says, or does not say, decides."""

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from connectors.lago.events import EventShape
from connectors.lago.invoices import BillingPeriod, Fee, FeeItem, Invoice
from connectors.lago.response_types import Charge, Plan, Subscription
from connectors.operations.after_end import Lost
from connectors.operations.after_invoice import CLOCKS_US, Judged, Posted, judged
from connectors.operations.last_invoice import Life, lives_of
from schemas.customers import OrgRecord, Period
from schemas.moments import HOUR_US, SECOND_US, lago_timestamp, to_iso
from schemas.records import LagoEvent, Manifest

CODE = "ai_usage"
START = 1_790_812_800 * SECOND_US
END = START + 10 * HOUR_US
LIFE = Life("sub-a", "id-a", "llm", START, END, END + SECOND_US)
ORG = OrgRecord("org", periods=(Period("sub-a", START, END), Period("sub-b", END + HOUR_US)))
NOW = END + 2 * HOUR_US
FEE = Fee(
    5, events_count=1, item=FeeItem("charge", CODE, grouped_by={}), lago_subscription_id="id-a", pay_in_advance=False
)
OWN_FEE = Fee(100, item=FeeItem("subscription", "llm"), lago_subscription_id="id-a", pay_in_advance=None)
COUNTED = BillingPeriod("id-a", to_iso(START), to_iso(END))
INVOICE = Invoice(
    "1",
    invoice_type="subscription",
    status="finalized",
    fees=(OWN_FEE, FEE),
    created_at=to_iso(END),
    billing_periods=(COUNTED,),
)


def changed(one: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(one, **fields)


@dataclass
class Lago:
    """What Lago has: one event of five cents, delivered before the end, and counted; and what a test adds."""

    listed: list[Invoice] = field(default_factory=lambda: [INVOICE])
    stored: list[tuple[str, int, str]] = field(default_factory=lambda: [("a", END - HOUR_US, "5")])
    charges: tuple[Charge, ...] = (Charge(CODE, "dynamic"), Charge("searches", "standard"))
    whole: bool = True
    asked: list[str] = field(default_factory=list)

    async def invoices(self, external_customer_id: str = "", *, most: int | None = None) -> list[Invoice]:
        self.asked.append(f"invoices of {external_customer_id}")
        return [changed(one, fees=(), billing_periods=()) for one in self.listed][:most]

    async def invoice(self, lago_id: str) -> Invoice | None:
        self.asked.append(f"invoice {lago_id}")
        return next((one for one in self.listed if one.lago_id == lago_id), None)

    async def plan(self, code: str) -> Plan | None:
        return Plan(code, "USD", self.charges) if code == "llm" else None

    async def events_of(
        self, external_subscription_id: str, code: str, from_us: int, until_us: int, most: int
    ) -> list[EventShape] | None:
        self.asked.append(f"events since {from_us - START}")
        assert (external_subscription_id, code, until_us) == ("sub-a", CODE, END + SECOND_US)
        shown = [EventShape(name, "sub-a", CODE, "", cents, created_at=to_iso(at)) for name, at, cents in self.stored]
        return shown if self.whole and len(shown) <= most else None


def posted(name: str, taken_us: int, at_us: int = END - 60 * SECOND_US, subscription: str = "sub-a") -> Posted:
    event = LagoEvent(name, "sub-a", CODE, lago_timestamp(at_us), "7", {"unit": "1"})
    return Posted(event, subscription, at_us, taken_us, Manifest(0, 1, 1, 1))


LATE = posted("late", END + 5 * SECOND_US)


async def look(lago: Lago, *found: Posted, now_us: int = NOW, life: Life = LIFE) -> Judged:
    return await judged([life], found or [LATE], ORG, lago, now_us, CODE)


def names(lost: list[Lost]) -> dict[str, str]:
    return {one.event.transaction_id: one.unclear for one in lost}


async def test_what_the_last_invoice_did_not_count_is_billed_again_on_the_orgs_next_subscription() -> None:
    """
    sub-a  ---------------|  invoice: 1 event, 5 cents        sub-b  |-----
             a (5)   late |       late (7) reaches Lago
    """
    lago = Lago()
    lago.stored.append(("late", END + 5 * SECOND_US, "7"))
    [lost], settled = await look(lago)
    assert (lost.unclear, lost.able, lost.ended_us, lost.manifest) == ("", True, END, LATE.manifest)
    assert lost.instead is not None
    assert (lost.instead.transaction_id, lost.instead.external_subscription_id) == ("late-again", "sub-b")
    assert settled == frozenset()


async def test_an_invoice_of_a_change_of_plan_counts_two_subscriptions_of_one_id() -> None:
    """They are told apart by Lago's own id."""
    other = changed(FEE, amount_cents=900, events_count=3, lago_subscription_id="id-b")
    begun = changed(COUNTED, lago_subscription_id="id-b", charges_from_datetime=to_iso(END))
    lago = Lago([changed(INVOICE, fees=(other, FEE), billing_periods=(begun, COUNTED))])
    lago.stored.append(("late", END + 5 * SECOND_US, "7"))
    assert names((await look(lago)).lost) == {"late": ""}


async def test_the_bounds_begin_with_the_life_to_the_millisecond() -> None:
    """Lago shows those of the invoice to the second; in that second the life before it may have ended."""
    lago, life = Lago(), LIFE._replace(started_us=START + 7_000)
    await look(lago, life=life)
    assert lago.asked[-1] == "events since 7000"


async def test_what_the_last_invoice_counted_is_settled() -> None:
    lago = Lago([changed(INVOICE, fees=(changed(FEE, amount_cents=12, events_count=2),))])
    lago.stored.append(("late", END + 5 * SECOND_US, "7"))
    assert await look(lago) == Judged([], frozenset({"late"}))


async def test_an_invoice_without_a_fee_of_the_metric_counted_nothing() -> None:
    lago = Lago([changed(INVOICE, fees=(OWN_FEE,))], [("late", END + 5 * SECOND_US, "7")])
    assert names((await look(lago)).lost) == {"late": ""}


@pytest.mark.parametrize("status", ["draft", "pending", "failed", None])
async def test_while_there_is_no_final_invoice_nothing_is_said(status: str | None) -> None:
    lago = Lago([changed(INVOICE, status=status)] if status else [])
    assert await look(lago, now_us=END + HOUR_US - 1) == Judged([], frozenset())


@pytest.mark.parametrize("status", ["failed", None])
async def test_an_invoice_that_does_not_come_is_named_after_an_hour(status: str | None) -> None:
    lago = Lago([changed(INVOICE, status=status)] if status else [])
    assert names((await look(lago, now_us=END + HOUR_US)).lost) == {"late": "no_last_invoice"}
    draft = Lago([changed(INVOICE, status="draft")])
    assert await look(draft) == Judged([], frozenset())


@pytest.mark.parametrize(
    "listed",
    [
        [changed(INVOICE, status="voided")],
        [changed(INVOICE, lago_id="2"), changed(INVOICE, status="voided")],
        [changed(INVOICE, lago_id="2"), INVOICE],
        [changed(INVOICE, fees=(FEE, FEE))],
        [changed(INVOICE, fees=(changed(FEE, item=FeeItem("charge", CODE, grouped_by={"model": "m"})),))],
        [changed(INVOICE, fees=(changed(FEE, lago_charge_filter_id="f"),))],
        [changed(INVOICE, fees=(changed(FEE, pay_in_advance=True),))],
        [changed(INVOICE, fees=(changed(FEE, events_count=None),))],
    ],
    ids=["voided", "made again", "two", "two fees", "group", "filter", "in advance", "no count"],
)
async def test_an_invoice_that_does_not_tell_leaves_it_unclear(listed: list[Invoice]) -> None:
    lago = Lago(listed)
    lago.stored.append(("late", END + 5 * SECOND_US, "7"))
    found = await look(lago)
    assert (names(found.lost), found.settled) == ({"late": "maybe_invoiced"}, frozenset())
    assert not found.lost[0].able


@pytest.mark.parametrize(
    "charges",
    [
        (),
        (Charge(CODE, "standard"),),
        (Charge(CODE, "dynamic", pay_in_advance=True),),
        (Charge(CODE, "dynamic"), Charge(CODE, "standard")),
    ],
)
async def test_a_fee_that_is_no_sum_of_amounts_tells_nothing(charges: tuple[Charge, ...]) -> None:
    lago = Lago(charges=charges)
    lago.stored.append(("late", END + 5 * SECOND_US, "7"))
    assert names((await look(lago)).lost) == {"late": "maybe_invoiced"}


async def test_where_an_invoice_tells_nothing_what_was_taken_before_the_end_is_not_named() -> None:
    """Else every ordinary end of such a subscription would be a complaint."""
    lago = Lago(charges=())
    found = await look(lago, posted("before", END - SECOND_US), posted("in its second", END + SECOND_US - 1), LATE)
    assert names(found.lost) == {"late": "maybe_invoiced"}


async def test_more_events_than_are_read_leave_it_unclear() -> None:
    lago = Lago(whole=False)
    lago.stored.append(("late", END + 5 * SECOND_US, "7"))
    assert names((await look(lago)).lost) == {"late": "maybe_invoiced"}


async def test_what_lago_does_not_show_is_unclear() -> None:
    assert names((await look(Lago())).lost) == {"late": "maybe_invoiced"}


async def test_only_the_invoice_that_ends_with_the_subscription_counts() -> None:
    """Not that of the month before, not another subscription's, not one of another kind."""
    month = BillingPeriod("id-a", to_iso(START), to_iso(END - 2 * SECOND_US))
    others = [
        changed(INVOICE, lago_id="month", billing_periods=(month,)),
        changed(INVOICE, lago_id="other", billing_periods=(changed(COUNTED, lago_subscription_id="id-b"),)),
        changed(INVOICE, lago_id="kind", invoice_type="progressive_billing"),
        changed(INVOICE, lago_id="old", created_at=to_iso(END - HOUR_US)),
    ]
    lago = Lago(others)
    assert names((await look(lago)).lost) == {"late": "no_last_invoice"}
    assert lago.asked == ["invoices of org", "invoice month", "invoice other"]


async def test_an_end_with_its_billing_periods_is_told_a_second_later() -> None:
    """A downgrade: the period ends at 23:59:59, the subscription at midnight."""
    period = changed(COUNTED, charges_to_datetime=to_iso(END - SECOND_US))
    lago = Lago([changed(INVOICE, billing_periods=(period,))])
    lago.stored.append(("late", END + 5 * SECOND_US, "7"))
    assert names((await look(lago)).lost) == {"late": ""}


async def test_lago_is_asked_only_about_what_was_taken_late_and_has_a_moment_in_the_life() -> None:
    lago = Lago()
    others = (
        posted("early", END - CLOCKS_US - 1),
        posted("behind", END + HOUR_US, at_us=END + SECOND_US),
        posted("before", END + HOUR_US, at_us=START - 1),
        posted("elsewhere", END + HOUR_US, subscription="sub-b"),
        replace_event(LATE, code="searches"),
    )
    assert await look(lago, *others) == Judged([], frozenset())
    assert lago.asked == []


def replace_event(one: Posted, **fields: Any) -> Posted:
    return one._replace(event=changed(one.event, **fields))


async def test_what_is_posted_again_already_needs_no_invoice() -> None:
    """Only its receipt is missing: whatever the invoice says, it must not be billed by this event."""
    for now_us in (END, NOW):
        [lost], settled = await look(Lago([]), LATE._replace(again=True), now_us=now_us)
        assert (lost.again, lost.instead, lost.able, lost.unclear, settled) == (True, None, True, "", frozenset())


async def test_without_another_subscription_it_has_nowhere_to_go() -> None:
    lago = Lago()
    lago.stored.append(("late", END + 5 * SECOND_US, "7"))
    ended = OrgRecord("org", periods=ORG.periods[:1])
    [lost], _ = await judged([LIFE], [LATE], ended, lago, NOW, CODE)
    assert (lost.unclear, lost.instead, lost.able) == ("", None, False)
    assert not replace(lost, unclear="maybe_invoiced", instead=LATE.event).able


def subscription(name: str, started_us: int, ended_us: int | None) -> Subscription:
    ended = None if ended_us is None else to_iso(ended_us)
    return Subscription(name, to_iso(started_us), "llm", ended, f"id of {started_us}")


def test_a_life_lasts_to_the_end_of_the_second_that_lago_tells_or_to_the_start_of_the_next_one() -> None:
    """A change of plan ends one life and begins the next at once; Lago tells the end to the second."""
    other = START + HOUR_US
    listed = [
        subscription("sub-a", START, END),
        subscription("sub-a", END + 400_000, None),
        subscription("sub-b", START, other),
        subscription("sub-c", START - HOUR_US, START - 1),
        Subscription("pending"),
    ]
    periods = [Period("sub-a", START, END), Period("sub-a", END + 400_000), Period("sub-b", START, other)]
    assert lives_of(listed, periods, START) == [
        Life("sub-a", f"id of {START}", "llm", START, END, END + 400_000),
        Life("sub-b", f"id of {START}", "llm", START, other, other + SECOND_US),
    ]
