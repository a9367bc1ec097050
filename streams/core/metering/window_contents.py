"""Puts calls and metered events into windows; a window becomes an event of Lago."""

from schemas.ledger import Window
from schemas.normalised_call import Usage
from streams.core.mapping.resolve import Target
from streams.core.metering.step_changes import Changes


def add_metered_event(changes: Changes, usage: Usage, target: Target, offset: int) -> Window:
    """Put one metered event into a window of its own, to which nothing is ever added. Return the window.

    Args:
        offset: of its raw record.
    """
    at_us = usage.end_us
    whose = (usage.customer_id, usage.id_kind, target.org_id, target.subscription, target.held)
    window = Window(offset, offset, *whose, "", "", (), at_us, 0, at_us, at_us, 1)
    window.identity, window.metered = usage.identity, usage.metered
    changes.windows[offset] = window
    if not target.held:
        changes.ready.append(window)
    return window


def add_call(window: Window, usage: Usage, offset: int) -> None:
    """Add a billed call to its window.

    Args:
        offset: of its raw record.
    """
    window.last = offset
    window.count += 1
    window.tokens_input += usage.tokens_input
    window.tokens_output += usage.tokens_output
    window.total_tokens += usage.total_tokens
    window.cached_tokens += usage.cached_tokens
    window.reasoning_tokens += usage.reasoning_tokens
    window.cost += usage.cost
    if usage.end_us > window.max_end_us:
        window.max_end_us = usage.end_us
    elif usage.end_us < window.min_end_us:
        window.min_end_us = usage.end_us
