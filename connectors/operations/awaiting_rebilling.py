"""Events that were posted after the end of their subscription and are not billed again yet: how many, and why they wait."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

from connectors.operations.after_end import UninvoicedEvent
from connectors.operations.after_invoice import TOO_MANY_EVENTS
from connectors.operations.last_invoice import MAYBE_INVOICED, NO_LAST_INVOICE, STILL_ARRIVING
from schemas.money import ZERO, add

#: Reasons why events wait.
NOWHERE, OUT_OF_PERIOD_POLICY, NO_LAGO_KEY = "nowhere", "out_of_period_policy", "no_lago_key"
#: The events are on the invoice of another customer, who has the subscription's id now.
ANOTHER_CUSTOMER = "another_customer"

#: If several reasons apply, the one that comes last here is shown.
_URGENCY: Final = (
    "",
    OUT_OF_PERIOD_POLICY,
    NO_LAGO_KEY,
    NOWHERE,
    STILL_ARRIVING,
    NO_LAST_INVOICE,
    TOO_MANY_EVENTS,
    MAYBE_INVOICED,
    ANOTHER_CUSTOMER,
)


class AwaitingRebilling(NamedTuple):
    """The number of events of one org that no invoice counts and that are not billed again yet, their cents, and the
    reason.
    """

    events: int = 0
    cents: Decimal = ZERO
    why: str = ""

    def with_these(self, lost: Iterable[UninvoicedEvent], why: str = "") -> "AwaitingRebilling":
        """Add these events; the most urgent reason wins."""
        waiting = self
        for event in lost:
            reasons = waiting.why, why or _reason(event)
            waiting = AwaitingRebilling(
                waiting.events + 1, add(waiting.cents, event.cents), max(reasons, key=_URGENCY.index)
            )
        return waiting


def _reason(lost: UninvoicedEvent) -> str:
    """Why the event is not billed again."""
    return ANOTHER_CUSTOMER if lost.taken_by else lost.unclear or NOWHERE
