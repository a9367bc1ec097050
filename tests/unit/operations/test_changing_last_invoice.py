"""A last invoice that is still changing: no event is left to a person's decision too early, and nothing is read too
often.
"""

from collections.abc import AsyncIterator

import pytest

from connectors.lago.events import COPIES, MOVED
from connectors.lago.responses import BillingPeriod, Invoice
from connectors.operations import last_invoice
from connectors.operations.after_invoice import Memory, not_invoiced
from connectors.operations.delivered import PostedEvent
from connectors.operations.last_invoice import Life
from schemas.moments import HOUR_US, SECOND_US, to_iso
from tests.unit.operations.test_last_invoice import (
    CODE,
    COUNTED,
    END,
    FEE,
    INVOICE,
    LATE,
    LIFE,
    NOW,
    Deliveries,
    Lago,
    changed,
    look,
    posted,
    with_late,
)

DAY_US = 24 * HOUR_US
#: A subscription that began in October and ended on the second of November.
BEGUN = END - 33 * DAY_US
TWO_MONTHS = Life("sub-a", "id-a", "llm", BEGUN, END, END + SECOND_US)
OCTOBER = BillingPeriod("id-a", to_iso(BEGUN), to_iso(END - 2 * DAY_US - SECOND_US))


def october(status: str = "finalized") -> Invoice:
    return changed(
        INVOICE, lago_id="october", status=status, created_at=to_iso(END - 2 * DAY_US), billing_periods=(OCTOBER,)
    )


async def test_a_change_during_the_reading_is_left_to_lago_and_not_to_a_person() -> None:
    """The invoice counted both events; `--also-unclear` bills what a person may decide."""
    lago = with_late(Lago([changed(INVOICE, fees=(changed(FEE, events_count=2, amount_cents=12),))]))
    lago.reading = MOVED
    assert await look(lago) == {"late": "still_arriving"}
    lago.reading = ""
    assert await look(lago) == {}


async def test_a_list_with_duplicates_is_read_again_before_it_is_used() -> None:
    """A page that moved during the reading looks like a duplicate."""

    class Shuffled(Lago):
        async def read_events_of(self, *asked: object, **more: object) -> str:
            self.reading = "" if any(one.startswith("events") for one in self.asked) else COPIES
            return await super().read_events_of(*asked, **more)  # type: ignore[arg-type]

    assert await look(with_late(Shuffled())) == {"late": ""}
    assert await look(with_late(Lago(reading=COPIES))) == {"late": "maybe_invoiced"}


@pytest.mark.parametrize("status", ["draft", "failed", "pending", "finalized"])
async def test_without_a_last_invoice_an_event_that_the_invoice_before_counted_is_not_reported(status: str) -> None:
    events = posted("october", END - 10 * DAY_US, END - 10 * DAY_US), posted("november", END - DAY_US, END - DAY_US)
    named = await look(Lago([october(status)]), *events, life=TWO_MONTHS)
    assert named == {"november": "no_last_invoice"}


async def test_the_invoice_before_is_found_among_those_of_other_subscriptions() -> None:
    period = BillingPeriod("id-b", to_iso(BEGUN), to_iso(END - DAY_US))
    others = [changed(INVOICE, lago_id=f"other {number}", billing_periods=(period,)) for number in range(40)]
    events = posted("october", END - 10 * DAY_US, END - 10 * DAY_US), posted("november", END - DAY_US, END - DAY_US)
    named = await look(Lago([*others, october()]), *events, life=TWO_MONTHS)
    assert named == {"november": "no_last_invoice"}


async def test_an_old_invoice_that_is_issued_late_does_not_hide_the_ones_after_it() -> None:
    """Lago lists invoices by their day of issue."""
    older = changed(INVOICE, lago_id="older", created_at=to_iso(BEGUN - DAY_US), billing_periods=())
    events = posted("october", END - 10 * DAY_US, END - 10 * DAY_US), posted("november", END - DAY_US, END - DAY_US)
    named = await look(Lago([older, october()]), *events, life=TWO_MONTHS)
    assert named == {"november": "no_last_invoice"}


async def test_with_more_invoices_than_are_listed_the_result_is_unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_invoice, "LISTED", 1)
    other = changed(INVOICE, lago_id="other", billing_periods=(changed(COUNTED, lago_subscription_id="id-b"),))
    events = posted("october", END - 10 * DAY_US, END - 10 * DAY_US), posted("late", END + HOUR_US)
    assert await look(Lago([other, october()]), *events, life=TWO_MONTHS) == {"late": "maybe_invoiced"}


async def test_after_an_event_was_billed_again_not_the_whole_period_is_read() -> None:
    """Its event is no row any more, but Lago still shows it."""
    since: list[int] = []

    class Rows(Deliveries):
        async def rows(self, life: Life, since_us: int) -> AsyncIterator[list[PostedEvent]]:
            since.append((since_us - END) // HOUR_US)
            async for page in super().rows(life, since_us):
                yield page

    lago, memory, rows = with_late(Lago()), Memory(), Rows([LATE])
    await not_invoiced(rows, [LIFE], "org", lago, NOW, CODE, memory)
    lago.stored.append(("later", END + 9 * SECOND_US, "7"))
    rows.posted[:] = [posted("later", END + 9 * SECOND_US)]
    [found] = await not_invoiced(rows, [LIFE], "org", lago, NOW, CODE, memory)
    assert found.named == {"later": ""}
    assert since == [-1, -1]


async def test_an_invoice_is_read_once_for_all_periods_that_ended_together() -> None:
    ids = [f"id-{number}" for number in range(20)]
    lago = with_late(
        Lago(
            [
                changed(
                    INVOICE,
                    lago_id=f"invoice of {one}",
                    fees=(changed(FEE, lago_subscription_id=one),),
                    billing_periods=(changed(COUNTED, lago_subscription_id=one),),
                )
                for one in ids
            ]
        )
    )
    lives = [LIFE._replace(lago_id=one) for one in ids]
    assert len(await not_invoiced(Deliveries([LATE]), lives, "org", lago, NOW, CODE, Memory())) == 20
    assert sum(one.startswith("invoice ") for one in lago.asked) == 20


async def test_an_event_accepted_before_the_end_that_lago_cannot_have_counted_is_reported_too() -> None:
    lago = Lago(
        [changed(INVOICE, fees=(changed(FEE, events_count=1, amount_cents=1),))],
        stored=[("before", END - SECOND_US, "500"), ("after", END + SECOND_US, "1")],
    )
    named = await look(lago, posted("before", END + SECOND_US), posted("after", END + SECOND_US))
    assert named == {"before": "maybe_invoiced", "after": "maybe_invoiced"}
