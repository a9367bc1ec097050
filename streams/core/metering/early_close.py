"""Open windows that are sealed before their time, because there are too many of them.

A client may choose what a window is of: a model behind a wildcard route, a field of `WINDOW_GROUP_BY`. So there may be
as many open windows as calls. A window that is sealed early is a part like any other: a later call of it begins the next.
"""

from heapq import nsmallest

from schemas.ledger import Window
from schemas.policy import MeterPolicy
from streams.core.metering.ledger_state import LedgerState

#: Part of the bound that is left open, so that not every tick of a flood looks for a few.
_LEFT = 0.8


def beyond_bound(books: LedgerState, now_us: int, policy: MeterPolicy) -> list[Window]:
    """The windows to seal now where more than `policy.max_open` are open: those that have waited longest for a call.

    What is called often stays, and is one event as before. Windows with a call of after `now_us` (a fast clock) stay
    too: Lago is told of nothing before it happened.
    """
    too_many = len(books.open) - int(policy.max_open * _LEFT)
    if len(books.open) <= policy.max_open:
        return []
    oldest = nsmallest(too_many, ((touched, first) for first, (_, touched) in books.open.items()))
    windows = (books.windows[first] for _, first in oldest)
    return [window for window in windows if window.max_end_us <= now_us]
