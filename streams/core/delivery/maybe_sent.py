"""Decides whether Lago may have the event of a dead letter; pure. All readers of dead letters and of receipts ask here.

The reason of a dead letter is the reason of its last failure. After a post that Lago did not answer, the last failure may
be `http_429` or `connect`, which alone say that Lago took nothing. So the sink writes a fact to the dead letter and to its
receipt: whether Lago may have stored an earlier post.
"""

from typing import Final

from streams.core.delivery.receipt_states import UNBILLABLE
from streams.core.delivery.restamp import INVOICED_PERIOD, OTHER_ORGANIZATION
from streams.core.mapping.held_reasons import ENDED, NO_CHARGE, WRONG_CURRENCY

#: Reason of a dead letter: Lago refused the event as a repeat, and does not show it.
UNCONFIRMED: Final = "unconfirmed"
#: Reasons of dead letters that Lago does not have. The sink gives them only to an event that was never posted, that Lago
#: refuses and does not show, or whose id belongs to another event in Lago.
_NOT_AT_LAGO: Final = frozenset(
    {
        *("bad_request", "id_conflict", "invalid_timestamp", "lago_refused", "malformed"),
        *("missing_code", "missing_transaction_id"),
        *(ENDED, INVOICED_PERIOD, NO_CHARGE, OTHER_ORGANIZATION, WRONG_CURRENCY),
    }
)


def lago_may_have(reason: str, maybe_sent: bool | None) -> bool:
    """Return whether Lago may have an event, and then bills it, although it is a dead letter.

    Args:
        reason: of the dead letter, or of a `failed` receipt. An event that Lago accepted and does not bill is no dead
            letter.
        maybe_sent: the fact of the sink; None = the record does not contain it, because an earlier release wrote it.
            Then the result is False only if the reason excludes that Lago has the event.
    """
    if reason.startswith(UNBILLABLE):
        return False
    if maybe_sent is None:
        return reason not in _NOT_AT_LAGO
    return maybe_sent or reason == UNCONFIRMED
