"""A call of the usage log, and the Lago event that bills it: whether the event's sum is that of its calls, and what no event bills."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from schemas.money import EXACT, ZERO, total
from schemas.reasons import WRITTEN_OFF
from streams.core.delivery.maybe_sent import lago_may_have
from streams.core.delivery.receipt_states import FAILED
from streams.core.metering.decisions import CARRIED, LOST, UNBILLED

#: The status of a part that is no event yet.
HELD: Final = "held"
#: Decisions of calls without an event whose cost no event ever has.
_NEVER_BILLED: Final = UNBILLED - {CARRIED}
_HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call of the usage log.

    Fields:
        usd: the amount that the provider charged.
        place: partition and offset in the raw topic.
        billed: the billed amount by the rate card `rate`; None = no card.
        price: the same amount before the payer's factor; None = no card.
    """

    identity: str
    part: str
    customer: str
    decision: str
    model: str
    provider: str
    tokens: int
    usd: Decimal
    started_at: datetime
    ended_at: datetime
    call_id: str
    request_id: str
    place: str
    tokens_input: int = 0
    tokens_output: int = 0
    billed: Decimal | None = None
    price: Decimal | None = None
    rate: str = ""


@dataclass(slots=True)
class EventStory:
    """One Lago event with its amount and its state.

    Fields:
        status: `pending`, `processing`, `completed` or `failed`; `HELD` for a part that is no event yet, `WRITTEN_OFF`
            for one that never becomes one.
        reason: of a part that was written off, the id of the audit line; of a held part, why it is held.
        reason_is_past: `reason` is the one of the moment at which the held part was counted, and may have changed.
        billed_at: the moment that the event has in Lago, which decides its invoice; None if its text is no moment.
        instead_of: id of the event that this event replaces, `""` = none.
        again: the event that replaces this event.
        factor: the payer's factor, from the rate card.
        maybe_sent: see `schemas.records.Receipt`.
    """

    transaction_id: str
    status: str
    subscription: str = ""
    org_id: str = ""
    cents: Decimal = ZERO
    claimed_calls: int = 0
    attempts: int = 0
    reason: str = ""
    sealed_at: datetime | None = None
    processed_at: datetime | None = None
    billed_at: datetime | None = None
    calls: list[CallRow] = field(default_factory=list)
    instead_of: str = ""
    again: "EventStory | None" = None
    factor: Decimal = Decimal(1)
    reason_is_past: bool = False
    maybe_sent: bool | None = None

    @property
    def may_be_in_lago(self) -> bool:
        """Whether it is a dead letter that Lago may have, and then bills."""
        return self.status == FAILED and lago_may_have(self.reason, self.maybe_sent)

    @property
    def last(self) -> "EventStory":
        """The event that bills the calls: the last event in the chain of replacements."""
        return self if self.again is None else self.again.last

    @property
    def usd_of_calls(self) -> Decimal:
        """The sum of the billed amounts of the calls, dollars: their costs, or their prices by the rate card with the
        factor.
        """
        return total(self._usd_of(call) for call in self.calls)

    @property
    def adds_up(self) -> bool:
        """Whether the event has the same number of calls and exactly the same sum."""
        cents = EXACT.multiply(self.usd_of_calls, _HUNDRED)
        return len(self.calls) == self.claimed_calls and cents == self.cents

    @property
    def is_shifted(self) -> bool:
        """Whether Lago bills it as of a moment after its last call: see law 11 of docs/owed.md."""
        ends = [call.ended_at for call in self.calls]
        return self.billed_at is not None and bool(ends) and max(ends) < self.billed_at

    @property
    def proved(self) -> bool:
        """Whether the event adds up, and also the event that replaces it, if there is one."""
        return self.adds_up and (self.again is None or self.again.proved)

    def _usd_of(self, call: CallRow) -> Decimal:
        return call.usd if call.price is None else EXACT.multiply(call.price, self.factor)


def never_billed(calls: list[tuple[CallRow, EventStory | None]]) -> Decimal:
    """Return the amount of the calls that no event will bill, dollars: their decision says why, or they were written
    off.

    Not in it: calls in a window that is still open; failed attempts whose cost is billed with the call after them; calls
    that were lost before an event billed them, because a backfill can bill those.
    """
    return total(map(_billed_amount, (call for call, story in calls if _is_never_billed(call, story))))


def usd_of(calls: list[tuple[CallRow, EventStory | None]]) -> Decimal:
    """Return the amount of the calls, dollars. The cost of a failed attempt that is billed with the call after it is in
    the amount of that call, and is not added again.
    """
    return total(_billed_amount(call) for call, _ in calls if call.decision != CARRIED)


def without_event(call: CallRow) -> str:
    """Say for people why a call has no event."""
    if call.part:
        return "open: its event is not sealed yet"
    if call.decision == CARRIED:
        return "billed with the call after it"
    if call.decision == LOST:
        return "not billed: lost, a backfill bills it"
    return f"not billed: {call.decision}"


def _is_never_billed(call: CallRow, story: EventStory | None) -> bool:
    if story is not None:
        return story.status == WRITTEN_OFF
    return not call.part and call.decision in _NEVER_BILLED


def _billed_amount(call: CallRow) -> Decimal:
    return call.usd if call.billed is None else call.billed
