"""Puts calls and metered events into windows; a window becomes an event of Lago."""

from msgspec.structs import replace

from schemas.bounded_name import bounded_name
from schemas.ledger import HELD_LENGTH_US, Rated, RateKey, Window, WindowKey
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from streams.core.mapping.resolve import Target
from streams.core.metering.ledger_state import LedgerState
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


def window_of(
    policy: MeterPolicy,
    ledger: LedgerState,
    touched: dict[WindowKey, Window],
    usage: Usage,
    target: Target,
    offset: int,
    rate: RateKey,
) -> Window:
    """Return the window of a call to be billed: one that this batch has touched, a copy of an open one, or a new one.

    Args:
        touched: gets the window.
        offset: of the call's raw record.
        rate: of the rate card that prices the call.
    """
    length = policy.window_us
    if target.held and length:
        length = HELD_LENGTH_US
    start = usage.end_us - usage.end_us % length if length else usage.end_us
    # A sender chooses these names: one of a megabyte must not be kept in memory for each window.
    model, provider = bounded_name(usage.model), bounded_name(usage.provider)
    group = tuple([bounded_name(getattr(usage, name)) for name in policy.group_by]) if policy.group_by else ()
    identity = b"" if length else usage.identity
    kind = usage.id_kind if target.held else ""
    key = (
        usage.customer_id,
        target.org_id,
        target.subscription,
        kind,
        model,
        provider,
        policy.group_by,
        group,
        start,
        length,
        identity,
        rate,
    )
    window = touched.get(key)
    if window is None:
        first = ledger.index.get(key)
        if first is not None:
            window = replace(ledger.windows[first])
        else:
            window = Window(
                offset,
                offset,
                usage.customer_id,
                usage.id_kind,
                target.org_id,
                target.subscription,
                target.held,
                model,
                provider,
                group,
                start,
                length,
                usage.end_us,
                usage.end_us,
                identity=identity,
                group_names=policy.group_by,
                rated=None if rate is None else Rated(*rate),
            )
        touched[key] = window
    return window
