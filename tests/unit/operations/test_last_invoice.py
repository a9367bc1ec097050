"""Usage with a time shortly before the end of its subscription: Lago's last invoice decides whether it was billed."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pytest

from connectors.lago.events import MOVED, TOO_MANY
from connectors.lago.responses import BillingPeriod, Charge, Fee, FeeItem, Invoice, Plan, StoredEvent
from connectors.operations.after_invoice import CLOCKS_US, Memory, not_invoiced
from connectors.operations.delivered import PostedEvent
from connectors.operations.last_invoice import Life
from schemas.moments import HOUR_US, SECOND_US, to_iso

CODE = "ai_usage"
START = 1_790_812_800 * SECOND_US
END = START + 10 * HOUR_US
LIFE = Life("sub-a", "id-a", "llm", START, END, END + SECOND_US)
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
    """Lago's data: one event of five cents, delivered and counted before the end; tests add more."""

    listed: list[Invoice] = field(default_factory=lambda: [INVOICE])
    stored: list[tuple[str, int, str]] = field(default_factory=lambda: [("a", END - HOUR_US, "5")])
    charges: tuple[Charge, ...] = (Charge(CODE, "dynamic"), Charge("searches", "standard"))
    reading: str = ""
    asked: list[str] = field(default_factory=list)

    async def invoices(
        self, external_customer_id: str = "", *, most: int | None = None, issued_from: str = ""
    ) -> list[Invoice]:
        self.asked.append(f"invoices of {external_customer_id} since {issued_from or 'ever'}")
        return [changed(one, fees=(), billing_periods=()) for one in self.listed][:most]

    async def invoice(self, lago_id: str) -> Invoice | None:
        self.asked.append(f"invoice {lago_id}")
        return next((one for one in self.listed if one.lago_id == lago_id), None)

    async def plan(self, code: str) -> Plan | None:
        return Plan(code, "USD", self.charges) if code == "llm" else None

    async def read_events_of(
        self, external_subscription_id: str, code: str, from_us: int, until_us: int, most: int, take: Any
    ) -> str:
        self.asked.append(f"events since {from_us - START}")
        assert (external_subscription_id, code, until_us) == ("sub-a", CODE, END + SECOND_US)
        for name, at, cents in self.stored:
            take(StoredEvent(name, to_iso(at), cents))
        return TOO_MANY if len(self.stored) > most else self.reading


class Posted(NamedTuple):
    """An event that was delivered."""

    row: PostedEvent
    subscription: str = "sub-a"


@dataclass
class Deliveries:
    """Deliveries of the org, for the metric."""

    posted: list[Posted]

    def _of(self, life: Life, since_us: int) -> list[PostedEvent]:
        own = [one.row for one in self.posted if one.subscription == life.subscription]
        return [one for one in own if life.started_us <= one.at_us < life.until_us and one.taken_us >= since_us]

    async def some(self, life: Life) -> bool:
        return bool(self._of(life, life.started_us))

    async def counted(self, life: Life, since_us: int, named: Collection[str]) -> tuple[int, int]:
        found = [one.transaction_id in named for one in self._of(life, since_us)]
        return sum(found), len(found) - sum(found)

    async def rows(self, life: Life, since_us: int) -> AsyncIterator[list[PostedEvent]]:
        for one in self._of(life, since_us):
            yield [one]


def posted(
    name: str, taken_us: int, at_us: int = END - 60 * SECOND_US, subscription: str = "sub-a", *, again: bool = False
) -> Posted:
    return Posted(PostedEvent(name, at_us, taken_us, Decimal(7), again), subscription)


LATE = posted("late", END + 5 * SECOND_US)


SETTLED: dict[str, str] = {}


async def look(
    lago: Lago, *found: Posted, now_us: int = NOW, life: Life = LIFE, memory: Memory | None = None
) -> dict[str, str]:
    """The events that are reported, and the reason."""
    memory = {} if memory is None else memory
    late = await not_invoiced(Deliveries([*found] or [LATE]), [life], "org", lago, now_us, CODE, memory)
    assert all(one.life is life and one.named for one in late)
    return {name: why for one in late for name, why in one.named.items()}


def with_late(lago: Lago) -> Lago:
    """A second event was stored five seconds after the end."""
    lago.stored.append(("late", END + 5 * SECOND_US, "7"))
    return lago


async def test_an_event_that_the_last_invoice_did_not_count_is_late() -> None:
    """
    sub-a  ---------------|  invoice: 1 event, 5 cents
             a (5)   late |       late (7) reaches Lago
    """
    assert await look(with_late(Lago())) == {"late": ""}


async def test_an_invoice_of_a_plan_change_counts_two_subscriptions_of_one_id() -> None:
    """Lago's own ids distinguish them."""
    other = changed(FEE, amount_cents=900, events_count=3, lago_subscription_id="id-b")
    begun = changed(COUNTED, lago_subscription_id="id-b", charges_from_datetime=to_iso(END))
    lago = Lago([changed(INVOICE, fees=(other, FEE), billing_periods=(begun, COUNTED))])
    with_late(lago)
    assert await look(lago) == {"late": ""}


async def test_the_invoiced_time_starts_with_the_period_to_the_millisecond() -> None:
    """Lago reports an invoice's bounds in whole seconds; the period before may have ended within that second."""
    lago, life = Lago(), LIFE._replace(started_us=START + 7_000)
    await look(lago, life=life)
    assert lago.asked[-1] == "events since 7000"


async def test_in_a_busy_orgs_period_the_late_events_are_found() -> None:
    """It has too many events to read each one, and as many that were delivered around the end."""
    many = 20_000
    counted = changed(FEE, events_count=many + 1, amount_cents=2 * many + 5)
    lago = with_late(Lago([changed(INVOICE, fees=(counted,))]))
    lago.stored += [(f"b{number}", END - 600 * SECOND_US, "2") for number in range(many)]
    around = [posted(f"b{number}", END - 600 * SECOND_US) for number in range(many)]
    assert await look(lago, *around, LATE) == {"late": ""}


async def test_the_invoice_of_the_period_before_is_found_among_many_invoices_of_other_kinds() -> None:
    month = BillingPeriod("id-a", to_iso(START), to_iso(START + HOUR_US - SECOND_US))
    topped_up = [changed(INVOICE, lago_id=f"{number}", invoice_type="credit") for number in range(100)]
    lago = Lago([*topped_up, changed(INVOICE, lago_id="month", billing_periods=(month,))])
    early = posted("early", START + HOUR_US, at_us=START + HOUR_US - 1)
    assert await look(lago, early, LATE) == {"late": "no_last_invoice"}


async def test_the_last_invoice_is_found_among_many_others() -> None:
    later = [changed(INVOICE, lago_id=f"{number}", invoice_type="one_off") for number in range(100)]
    assert await look(with_late(Lago([*later, INVOICE]))) == {"late": ""}


async def test_an_event_that_the_last_invoice_counted_is_settled() -> None:
    lago = Lago([changed(INVOICE, fees=(changed(FEE, amount_cents=12, events_count=2),))])
    with_late(lago)
    assert await look(lago) == SETTLED


async def test_an_invoice_without_a_fee_of_the_metric_counted_nothing() -> None:
    lago = Lago([changed(INVOICE, fees=(OWN_FEE,))], [("late", END + 5 * SECOND_US, "7")])
    assert await look(lago) == {"late": ""}


@pytest.mark.parametrize("status", ["draft", "pending", "failed", None])
async def test_without_a_final_invoice_nothing_is_reported(status: str | None) -> None:
    lago = Lago([changed(INVOICE, status=status)] if status else [])
    assert await look(lago, now_us=END + HOUR_US - 1) == SETTLED


@pytest.mark.parametrize("status", ["failed", None])
async def test_a_missing_invoice_is_reported_after_an_hour(status: str | None) -> None:
    lago = Lago([changed(INVOICE, status=status)] if status else [])
    assert await look(lago, now_us=END + HOUR_US) == {"late": "no_last_invoice"}
    draft = Lago([changed(INVOICE, status="draft")])
    assert await look(draft) == SETTLED


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
async def test_an_invoice_without_usable_counts_leaves_the_event_unclear(listed: list[Invoice]) -> None:
    lago = Lago(listed)
    with_late(lago)
    assert await look(lago) == {"late": "maybe_invoiced"}


@pytest.mark.parametrize(
    "charges",
    [
        (),
        (Charge(CODE, "standard"),),
        (Charge(CODE, "dynamic", pay_in_advance=True),),
        (Charge(CODE, "dynamic"), Charge(CODE, "standard")),
    ],
)
async def test_a_fee_that_is_no_sum_of_amounts_is_not_used(charges: tuple[Charge, ...]) -> None:
    lago = Lago(charges=charges)
    with_late(lago)
    assert await look(lago) == {"late": "maybe_invoiced"}


async def test_if_the_invoice_is_unusable_events_accepted_before_the_end_are_not_reported() -> None:
    """Otherwise every normal end of such a subscription would be reported."""
    lago = Lago(charges=())
    found = await look(lago, posted("before", END - SECOND_US), posted("in its second", END + SECOND_US - 1), LATE)
    assert found == {"late": "maybe_invoiced"}


@pytest.mark.parametrize(("reading", "why"), [(TOO_MANY, "too_many_events"), (MOVED, "still_arriving")])
async def test_data_that_cannot_be_read_completely_leave_the_event_unclear_with_the_reason(
    reading: str, why: str
) -> None:
    lago, memory = with_late(Lago(reading=reading)), Memory()
    assert await look(lago, posted("early", END - SECOND_US), LATE, memory=memory) == {"late": why}
    lago.reading = ""
    assert await look(lago, posted("early", END - SECOND_US), LATE, memory=memory) == {
        "early": "still_arriving",
        "late": "",
    }


async def test_an_event_that_lago_does_not_show_is_looked_up_again() -> None:
    assert await look(Lago()) == {"late": "still_arriving"}


async def test_only_the_invoice_that_ends_with_the_subscription_counts() -> None:
    """Not the one of the month before, of another subscription, or of another kind."""
    month = BillingPeriod("id-a", to_iso(START), to_iso(END - 2 * SECOND_US))
    others = [
        changed(INVOICE, lago_id="month", billing_periods=(month,)),
        changed(INVOICE, lago_id="other", billing_periods=(changed(COUNTED, lago_subscription_id="id-b"),)),
        changed(INVOICE, lago_id="kind", invoice_type="progressive_billing"),
        changed(INVOICE, lago_id="old", created_at=to_iso(END - HOUR_US)),
    ]
    lago = Lago(others)
    assert await look(lago) == {"late": "no_last_invoice"}
    since, ever = (f"invoices of org since {day}" for day in (to_iso(END - 48 * HOUR_US)[:10], "ever"))
    assert lago.asked == [since, "invoice month", "invoice other", ever]


async def test_an_end_on_a_period_border_is_reported_a_second_later() -> None:
    """At a downgrade the period ends at 23:59:59, the subscription at midnight."""
    period = changed(COUNTED, charges_to_datetime=to_iso(END - SECOND_US))
    lago = Lago([changed(INVOICE, billing_periods=(period,))])
    with_late(lago)
    assert await look(lago) == {"late": ""}


async def test_lago_is_asked_only_about_periods_with_deliveries() -> None:
    lago, memory = Lago(), Memory()
    others = (
        posted("behind", END + HOUR_US, at_us=END + SECOND_US),
        posted("before", END + HOUR_US, at_us=START - 1),
        posted("elsewhere", END + HOUR_US, subscription="sub-b"),
    )
    assert await look(lago, *others, memory=memory) == SETTLED
    assert lago.asked == []
    assert await look(with_late(lago), *others, LATE, memory=memory) == {"late": ""}


async def test_events_delivered_long_before_the_end_are_not_read() -> None:
    """Only the invoice is read: it might be missing."""
    lago, memory = Lago(), Memory()
    early = posted("early", END - CLOCKS_US - 1)
    for _ in range(2):
        assert await look(lago, early, memory=memory) == SETTLED
    assert [one.split()[0] for one in lago.asked] == ["invoices", "invoice"]


async def test_an_event_late_by_lagos_clock_is_found_even_if_our_clock_is_hours_behind() -> None:
    """Our clock decides which events are looked up, unless Lago stored others after the end."""
    lago = with_late(Lago(stored=[("a", END - HOUR_US, "5")]))
    slow = posted("late", END - 3 * HOUR_US)
    near = posted("a", END - SECOND_US)
    assert await look(lago, near, slow) == {"late": ""}


async def test_another_senders_event_is_not_ours_to_bill() -> None:
    lago, memory = with_late(Lago()), Memory()
    for _ in range(2):
        assert await look(lago, posted("a", END - SECOND_US), memory=memory) == SETTLED


async def test_lagos_events_are_read_once_while_nothing_changes() -> None:
    """They are read again if an event was delivered since; if the invoice was created again, the result is unclear."""
    lago, memory = with_late(Lago()), Memory()

    def read() -> int:
        return sum(one.startswith("events") for one in lago.asked)

    for _ in range(3):
        assert await look(lago, LATE, memory=memory) == {"late": ""}
    assert read() == 1
    lago.stored.append(("too", END + 6 * SECOND_US, "1"))
    for _ in range(3):
        assert await look(lago, LATE, posted("too", END + 6 * SECOND_US), memory=memory) == {"late": "", "too": ""}
    assert read() == 2
    # Both are billed again: their receipts fail, and nothing is left.
    asked = len(lago.asked)
    for _ in range(2):
        assert await look(lago, posted("elsewhere", END, subscription="sub-b"), memory=memory) == {
            "late": "",
            "too": "",
        }
    assert len(lago.asked) == asked
    lago.listed = [changed(INVOICE, status="voided")]
    assert set((await look(lago, LATE, memory=memory)).values()) == {"maybe_invoiced"}


async def test_a_settled_delivered_event_is_not_looked_up_again() -> None:
    lago, memory = Lago(), Memory()
    for _ in range(3):
        assert await look(lago, posted("a", END - SECOND_US), memory=memory) == SETTLED
    assert [one.split()[0] for one in lago.asked] == ["invoices", "invoice", "events"]
    with_late(lago)
    assert await look(lago, posted("a", END - SECOND_US), LATE, memory=memory) == {"late": ""}


async def test_without_a_last_invoice_every_event_of_the_last_period_is_reported() -> None:
    """
    sub-a  -----------|-----------|  ended with `skip`
            invoiced     a  b  late

    Also what was delivered long before the end; Lago may hide an invoice of less than half a cent.
    """
    month = BillingPeriod("id-a", to_iso(START), to_iso(START + HOUR_US - SECOND_US))
    listed = [changed(INVOICE, lago_id="month", billing_periods=(month,), created_at=to_iso(START + HOUR_US))]
    lago, memory = Lago(listed), Memory()
    found = [
        posted("invoiced", START + 2 * HOUR_US, at_us=START + HOUR_US - 1),
        posted("a", START + 2 * HOUR_US, at_us=START + HOUR_US),
        posted("b", END - 5 * HOUR_US, at_us=END - 5 * HOUR_US),
        LATE,
    ]
    assert await look(lago, *found, now_us=END + HOUR_US - 1, memory=memory) == SETTLED
    for _ in range(2):
        named = await look(lago, *found, memory=memory)
        assert named == dict.fromkeys(("a", "b", "late"), "no_last_invoice")
    lago.listed.append(changed(INVOICE, fees=(changed(FEE, amount_cents=12, events_count=2),)))
    lago.stored = [("a", END - HOUR_US, "5"), ("late", END + 5 * SECOND_US, "7")]
    assert await look(lago, *found, memory=memory) == SETTLED
    small = [one._replace(row=one.row._replace(cents=Decimal("0.1"))) for one in found]
    assert await look(Lago([]), *small) == {"late": "no_last_invoice"}


async def test_an_event_that_is_already_posted_again_needs_no_invoice() -> None:
    """Only its receipt is missing. This event must not bill the usage, no matter what the invoice contains."""
    for now_us in (END, NOW):
        assert await look(Lago([]), posted("late", END + 5 * SECOND_US, again=True), now_us=now_us) == {"late": ""}
