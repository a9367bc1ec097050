"""Windows leave the ledger: sealed into events when due, released when a held one finds its target."""

from collections.abc import Iterable, Mapping
from decimal import localcontext

import msgspec

from schemas.customers import CustomerRecord, OrgRecord
from schemas.ledger import Position, Window, WindowKey, window_key
from schemas.money import EXACT
from schemas.policy import MeterPolicy
from schemas.records import Receipt
from streams.core.mapping.billing_periods import Billed, billed
from streams.core.mapping.resolve import NO_MAPPING, Target, held_for, resolve_held, resolve_org
from streams.core.mapping.time_spans import borders, crossed, stretch
from streams.core.metering.lago_event import event_of, manifest_of
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes, SealedPart

#: Windows that one names as merged into it, at most: its event names them too, and a record has at most 1 MB.
MOST_MERGED = 4_000

copy = msgspec.structs.replace


def due(window: Window, opened_us: int, touched_us: int, now_us: int, policy: MeterPolicy) -> bool:
    """Whether an open window is to be sealed at `now_us`.

        start ........ end ... end+grace
          |   calls     |  late  |  sealed here, with or without new traffic

    One that was opened after `end + grace` (late calls, backfills, releases) is sealed once quiet.
    """
    ripe = window.start_us + window.length_us + policy.grace_us
    if now_us < ripe:
        return False
    if opened_us < ripe:
        return True
    return now_us - touched_us >= policy.quiet_us or now_us - opened_us >= policy.late_us


def due_windows(books: LedgerState, now_us: int, policy: MeterPolicy, limit: int) -> list[Window]:
    """At most `limit` open windows that are due."""
    found = []
    for first, (opened_us, touched_us) in books.open.items():
        window = books.windows[first]
        if due(window, opened_us, touched_us, now_us, policy):
            found.append(window)
            if len(found) == limit:
                break
    return found


def seal(
    position: Position,
    windows: Iterable[Window],
    orgs: Mapping[str, OrgRecord],
    policy: MeterPolicy,
    prefix: str,
    partition: int,
    now_us: int,
) -> Changes:
    """Seal windows into events; one that Lago would not bill at `now_us` becomes held.

    `LATE_POLICY=shift` moves the timestamp of what is too early, or late for its invoice, to the start of the first
    billing period that is not invoiced, and keeps the true time in `usage_end`; `hold` waits for an operator.
    """
    counters = copy(position.counters)
    sealed_calls, sealed_cost = counters.sealed.calls, counters.sealed.cost
    changes = Changes(position)
    seal_seq = position.seal_seq
    with localcontext(EXACT):
        for window in windows:
            found = moment_for(window, orgs, policy, now_us)
            if found.held:
                changes.windows[window.first] = copy(window, subscription="", held=found.held)
                changes.kept += 1
                continue
            event = event_of(window, prefix, found.at_us, policy)
            changes.shifted += found.at_us != window.max_end_us
            seal_seq += 1
            receipt = Receipt(
                event.transaction_id,
                "pending",
                now_us,
                event.external_subscription_id,
                event.precise_total_amount_cents,
                window.count,
            )
            manifest = manifest_of(window, partition, policy.deployment)
            changes.sealed.append(SealedPart(event, manifest, receipt, seal_seq))
            changes.windows[window.first] = None
            sealed_calls += window.count
            sealed_cost += window.cost
    counters.sealed = copy(counters.sealed, calls=sealed_calls, cost=sealed_cost)
    changes.position = copy(position, seal_seq=seal_seq, counters=counters)
    return changes


def moment_for(window: Window, orgs: Mapping[str, OrgRecord], policy: MeterPolicy, now_us: int) -> Billed:
    """When Lago is told the usage happened, so that it bills it; or why it is to be held."""
    org = orgs.get(window.org_id)
    if org is None:
        return Billed(window.max_end_us)
    code, owed = (policy.event_code, True) if window.metered is None else (window.metered.code, False)
    found = billed(org.periods, window.subscription, window.max_end_us, now_us, code, owed=owed)
    if found.at_us == window.max_end_us and not found.held:
        return found
    return found._replace(held=held_for(found, window.max_end_us, policy.late_policy))


def release(
    books: LedgerState,
    customers: Mapping[str, CustomerRecord],
    orgs: Mapping[str, OrgRecord],
    policy: MeterPolicy,
    limit: int,
    now_us: int | None = None,
    names: Iterable[str] | None = None,
) -> Changes:
    """Held windows whose target is known now go into open windows of that target; of others the reason is brought up
    to date.

    Sums move whole: conservation is untouched. All calls of a held window were resolved alike when it was made
    (`coalesce`; one second long until then, and versions begin on whole seconds). A border that was learnt since may
    lie in it: it goes whole, by its last call, and is counted in `straddled`. Usage recorded for an org asks for no
    mapping. `now_us` None: all mapping versions have begun, and no subscription has ended. `names`: only of these
    customers; None = of all.
    """
    changes = Changes(books.position)
    moved: dict[WindowKey, Window] = {}
    for customer_id in books.held if names is None else names:
        firsts = books.held.get(customer_id, ())
        customer, org = customers.get(customer_id), orgs.get(customer_id)
        if customer is None and (org is None or not org.periods):
            continue
        known = borders(customer, orgs)
        for first in firsts:
            window = books.windows[first]
            target = _target(window, customer, orgs, policy, now_us)
            if target.held:
                if (target.held, target.org_id) != (window.held, window.org_id):
                    changes.windows[first] = copy(window, held=target.held, org_id=target.org_id)
            else:
                changes.windows[first] = None
                changes.straddled += crossed(known, window.min_end_us, window.max_end_us)
                _merge(changes, moved, books, _retarget(window, target, policy))
            if len(changes.windows) >= limit:
                break
        if len(changes.windows) >= limit:
            break
    for window in moved.values():
        changes.windows[window.first] = window
    return changes


def coalesce(
    books: LedgerState,
    customers: Mapping[str, CustomerRecord],
    orgs: Mapping[str, OrgRecord],
    policy: MeterPolicy,
    now_us: int,
    limit: int,
) -> Changes:
    """Held windows older than `coalesce_us` become one a customer, id kind, model, group and stretch in which their
    target is the same as far as is known (streams/core/mapping/time_spans.py): a quarter of an hour, or less.

    So a flood of unknown names costs bounded memory, and undecided usage is not decided by being merged.
    """
    changes = Changes(books.position)
    moved: dict[WindowKey, Window] = {}
    before_us = now_us - policy.coalesce_us
    for customer_id, firsts in books.held.items():
        customer = customers.get(customer_id)
        known = borders(customer, orgs)
        for first in firsts:
            window = books.windows[first]
            if window.identity or window.max_end_us >= before_us:
                continue
            fitting = stretch(known, window.min_end_us, window.max_end_us)
            if fitting is None or _covers(window, fitting):
                continue
            target = _target(window, customer, orgs, policy, now_us)
            if not target.held:  # it is released at the next look
                continue
            changes.windows[first] = None
            start_us, end_us = fitting
            at = copy(window, start_us=start_us, length_us=end_us - start_us, held=target.held, org_id=target.org_id)
            _merge(changes, moved, books, at)
            if len(changes.windows) >= limit:
                break
        if len(changes.windows) >= limit:
            break
    for window in moved.values():
        changes.windows[window.first] = window
    return changes


def _covers(window: Window, fitting: tuple[int, int]) -> bool:
    """Whether the window is that stretch, or was made of a longer one before a border in it was known."""
    return window.start_us <= fitting[0] and fitting[1] <= window.start_us + window.length_us


def _target(
    window: Window,
    customer: CustomerRecord | None,
    orgs: Mapping[str, OrgRecord],
    policy: MeterPolicy,
    now_us: int | None,
) -> Target:
    """Where a held window would go now."""
    if window.metered is not None:
        code = window.metered.code
        target = resolve_org(window.customer_id, window.max_end_us, orgs, policy.late_policy, code, now_us)
    elif customer is None:  # what was held for an org stays so; it is looked at once there is a record again
        target = Target(window.org_id, "", window.held if window.org_id else NO_MAPPING)
    else:
        at_us, kind = window.max_end_us, window.id_kind
        target = resolve_held(customer, window.org_id, at_us, kind, orgs, policy.event_code, now_us, window.held)
    if not target.held and (held := _outside(window, target, orgs, policy, now_us or 0)):
        return Target(target.org_id, "", held)
    return target


def _outside(window: Window, target: Target, orgs: Mapping[str, OrgRecord], policy: MeterPolicy, now_us: int) -> str:
    """Why it would be held there again when it is sealed; `""` where it would not."""
    there = copy(window, org_id=target.org_id, subscription=target.subscription)
    return moment_for(there, orgs, policy, now_us).held


def _retarget(window: Window, target: Target, policy: MeterPolicy) -> Window:
    length = policy.window_us if window.metered is None else 0
    start = window.max_end_us - window.max_end_us % length if length else window.max_end_us
    return copy(
        window,
        org_id=target.org_id,
        subscription=target.subscription,
        held="",
        start_us=start,
        length_us=length,
    )


def _merge(changes: Changes, moved: dict[WindowKey, Window], books: LedgerState, window: Window) -> None:
    """Add `window` to the one that has its key, if there is one that can name it.

    The one that is there is not on its way elsewhere in the same step: open windows are not, and a held one that has
    the key of a stretch as it is known now stays (`_covers`).
    """
    key = window_key(window)
    into = moved.get(key)
    if into is None:
        first = books.index.get(key)
        into = books.windows[first] if first is not None and first != window.first else None
    if into is not None and len(into.merged) + len(window.merged) >= MOST_MERGED:
        changes.windows[into.first] = into
        into = None
    moved[key] = window if into is None else merged(into, window)


def merged(into: Window, window: Window) -> Window:
    """Two windows as one, under the first offset of `into`; every sum is exact."""
    with localcontext(EXACT):
        return copy(
            into,
            last=max(into.last, window.last),
            min_end_us=min(into.min_end_us, window.min_end_us),
            max_end_us=max(into.max_end_us, window.max_end_us),
            count=into.count + window.count,
            tokens_input=into.tokens_input + window.tokens_input,
            tokens_output=into.tokens_output + window.tokens_output,
            total_tokens=into.total_tokens + window.total_tokens,
            cached_tokens=into.cached_tokens + window.cached_tokens,
            reasoning_tokens=into.reasoning_tokens + window.reasoning_tokens,
            cost=into.cost + window.cost,
            merged=(*into.merged, window.first, *window.merged),
        )
