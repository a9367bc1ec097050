"""Closes windows: seals due ones into events, and releases held ones that have a target."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, localcontext

import msgspec

from schemas.customers import CustomerRecord, OrgRecord
from schemas.ledger import Position, Rated, Window, WindowKey, window_key
from schemas.money import EXACT, ZERO
from schemas.normalised_call import TOKENS
from schemas.policy import MeterPolicy
from schemas.records import Receipt
from streams.core.mapping.billing_periods import Billed, billed
from streams.core.mapping.held_reasons import NO_MAPPING, UNKNOWN_RATE
from streams.core.mapping.organizations import organization_of, unreachable
from streams.core.mapping.resolve import Target, held_for, resolve_held, resolve_org
from streams.core.mapping.time_spans import borders, crossed, stretch
from streams.core.metering.lago_event import event_of, manifest_of
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes, SealedPart
from streams.core.pricing.cards import Rates

#: The most windows that can be merged into one. The event's manifest names each of them, and a Kafka record holds at
#: most 1 MB.
MOST_MERGED = 4_000

copy = msgspec.structs.replace


def due(window: Window, opened_us: int, touched_us: int, now_us: int, policy: MeterPolicy) -> bool:
    """Return whether an open window must be sealed at `now_us`.

        start ........ end ... end+grace
          |   calls     |  late  |  sealed here, with or without new traffic

    A window that was opened after `end + grace` (late calls, backfills, releases) is sealed when no call has come for
    `quiet_us`, and at the latest after `late_us`.
    """
    ripe = window.start_us + window.length_us + policy.grace_us
    if now_us < ripe:
        return False
    if opened_us < ripe:
        return True
    return now_us - touched_us >= policy.quiet_us or now_us - opened_us >= policy.late_us


def due_windows(ledger: LedgerState, now_us: int, policy: MeterPolicy, limit: int) -> list[Window]:
    """Return at most `limit` open windows that are due."""
    due_now = []
    for first, (opened_us, touched_us) in ledger.open.items():
        window = ledger.windows[first]
        if due(window, opened_us, touched_us, now_us, policy):
            due_now.append(window)
            if len(due_now) == limit:
                break
    return due_now


def seal(
    position: Position,
    windows: Iterable[Window],
    orgs: Mapping[str, OrgRecord],
    policy: MeterPolicy,
    prefix: str,
    partition: int,
    now_us: int,
) -> Changes:
    """Seal windows into events. A window that Lago would not bill at `now_us` becomes held instead.

    Usage may be before its subscription's start, or in a billing period that is invoiced. With
    `OUT_OF_PERIOD_POLICY=shift` its timestamp becomes the start of the first billing period that is not invoiced, and
    `usage_end` keeps the true time. With `hold` it waits for an operator.

    Args:
        prefix: see `part_prefix`.
        partition: of the raw topic.
        now_us: microseconds since 1970 UTC.
    """
    counters, margin = copy(position.counters), position.margin
    sealed_calls, sealed_cost = counters.sealed.calls, counters.sealed.cost
    changes = Changes(position)
    seal_seq = position.seal_seq
    with localcontext(EXACT):
        for window in windows:
            moment = moment_for(window, orgs, policy, now_us)
            if moment.held:
                rated = window.rated and Rated(window.rated.rate, usd=window.rated.usd)
                changes.windows[window.first] = copy(window, subscription="", held=moment.held, rated=rated)
                changes.kept += 1
                continue
            event = event_of(window, prefix, moment.at_us, policy)
            changes.shifted += moment.at_us != window.max_end_us
            seal_seq += 1
            cents, where = event.precise_total_amount_cents, event.external_subscription_id
            receipt = Receipt(event.transaction_id, "pending", now_us, where, cents, window.count)
            organization = organization_of(window.org_id, orgs.get(window.org_id))
            manifest = manifest_of(window, partition, policy.deployment, organization)
            changes.sealed.append(SealedPart(event, manifest, receipt, seal_seq))
            changes.windows[window.first] = None
            sealed_calls += window.count
            sealed_cost += window.cost
            if window.rated is not None:
                margin += window.billed - window.cost
    counters.sealed = copy(counters.sealed, calls=sealed_calls, cost=sealed_cost)
    changes.position = copy(position, seal_seq=seal_seq, counters=counters, margin=margin)
    return changes


def moment_for(window: Window, orgs: Mapping[str, OrgRecord], policy: MeterPolicy, now_us: int) -> Billed:
    """Return the timestamp with which Lago bills the usage, or the reason to hold it."""
    org = orgs.get(window.org_id)
    if held := unreachable(organization_of(window.org_id, org), policy.organizations):
        return Billed(window.max_end_us, held)
    if org is None:
        return Billed(window.max_end_us)
    code, owed = (policy.event_code, True) if window.metered is None else (window.metered.code, False)
    period = billed(org.periods, window.subscription, window.max_end_us, now_us, code, owed=owed)
    if period.at_us == window.max_end_us and not period.held:
        return period
    return period._replace(held=held_for(period, window.max_end_us, policy.out_of_period_policy))


def release(
    ledger: LedgerState,
    customers: Mapping[str, CustomerRecord],
    orgs: Mapping[str, OrgRecord],
    policy: MeterPolicy,
    limit: int,
    now_us: int | None = None,
    names: Iterable[str] | None = None,
    rates: Rates | None = None,
) -> Changes:
    """Move held windows that have a target into open windows of that target; update the reason of the others.

    A window moves as a whole, so conservation is not affected. All calls of a held window had the same result when it
    was made, because it is one second long until `coalesce`, and mapping versions begin on whole seconds. If a border
    within the window becomes known later, the last call's target applies to the whole window, and `straddled` counts
    it. Usage recorded for an org needs no mapping.

    Args:
        limit: the most windows that change in this step.
        now_us: microseconds since 1970 UTC; None = all mapping versions have begun and no subscription has ended.
        names: customers to examine; None = all.
        rates: the versions of the rate card, for the payer's factor.
    """
    changes = Changes(ledger.position)
    moved: dict[WindowKey, Window] = {}
    found = (name for name in (ledger.held if names is None else names) if _may_have_target(name, customers, orgs))
    for window, customer, known in _held(ledger, found, customers, orgs):
        target = _target(window, customer, orgs, policy, now_us, rates)
        if not target.held:
            changes.windows[window.first] = None
            changes.straddled += crossed(known, window.min_end_us, window.max_end_us)
            _merge(changes, moved, ledger, _retarget(window, target, policy, rates))
        elif (target.held, target.org_id) != (window.held, window.org_id):
            changes.windows[window.first] = copy(window, held=target.held, org_id=target.org_id)
        if len(changes.windows) >= limit:
            break
    changes.windows.update({window.first: window for window in moved.values()})
    return changes


def coalesce(
    ledger: LedgerState,
    customers: Mapping[str, CustomerRecord],
    orgs: Mapping[str, OrgRecord],
    policy: MeterPolicy,
    now_us: int,
    limit: int,
    rates: Rates | None = None,
) -> Changes:
    """Merge held windows that are older than `coalesce_us`: one remains for each customer, id kind, model, group and
    time span.

    A time span is at most a quarter of an hour, with the same target as far as is known
    (streams/core/mapping/time_spans.py). So a flood of unknown names needs bounded memory, and a merge does not decide
    who pays.
    """
    changes = Changes(ledger.position)
    moved: dict[WindowKey, Window] = {}
    before_us = now_us - policy.coalesce_us
    for window, customer, known in _held(ledger, ledger.held, customers, orgs):
        if window.identity or window.max_end_us >= before_us:
            continue
        fitting = stretch(known, window.min_end_us, window.max_end_us)
        if fitting is None or _covers(window, fitting):
            continue
        target = _target(window, customer, orgs, policy, now_us, rates)
        if not target.held:  # `release` handles it at its next call
            continue
        changes.windows[window.first] = None
        start_us, end_us = fitting
        at = copy(window, start_us=start_us, length_us=end_us - start_us, held=target.held, org_id=target.org_id)
        _merge(changes, moved, ledger, at)
        if len(changes.windows) >= limit:
            break
    changes.windows.update({window.first: window for window in moved.values()})
    return changes


def _held(
    ledger: LedgerState,
    names: Iterable[str],
    customers: Mapping[str, CustomerRecord],
    orgs: Mapping[str, OrgRecord],
) -> Iterator[tuple[Window, CustomerRecord | None, list[int]]]:
    """Yield the held windows in memory of these customers, each with its customer's record and its known borders."""
    for name in names:
        if firsts := ledger.held.get(name):
            customer = customers.get(name)
            known = borders(customer, orgs)
            for first in firsts:
                yield ledger.windows[first], customer, known


def _may_have_target(name: str, customers: Mapping[str, CustomerRecord], orgs: Mapping[str, OrgRecord]) -> bool:
    return name in customers or (name in orgs and bool(orgs[name].periods))


def _covers(window: Window, fitting: tuple[int, int]) -> bool:
    """Return whether the window already has that time span, or was merged over a longer span before a border in it was
    known.
    """
    return window.start_us <= fitting[0] and fitting[1] <= window.start_us + window.length_us


def _target(
    window: Window,
    customer: CustomerRecord | None,
    orgs: Mapping[str, OrgRecord],
    policy: MeterPolicy,
    now_us: int | None,
    rates: Rates | None,
) -> Target:
    """Return the present target of a held window."""
    if window.metered is not None:
        code = window.metered.code
        target = resolve_org(window.customer_id, window.max_end_us, orgs, policy.out_of_period_policy, code, now_us)
    elif customer is None:  # usage held for an org keeps this org until the customer has a record again
        target = Target(window.org_id, "", window.held if window.org_id else NO_MAPPING)
    else:
        at_us, kind = window.max_end_us, window.id_kind
        target = resolve_held(customer, window.org_id, at_us, kind, orgs, policy.event_code, now_us, window.held)
    if not target.held and (held := _outside(window, target, orgs, policy, now_us or 0)):
        return Target(target.org_id, "", held)
    if not target.held and window.rated is not None and (rates is None or rates.of(window.rated.rate) is None):
        return Target(target.org_id, "", UNKNOWN_RATE)
    return target


def _outside(window: Window, target: Target, orgs: Mapping[str, OrgRecord], policy: MeterPolicy, now_us: int) -> str:
    """Say why the target would hold the window again at its seal; `""` = it would not."""
    there = copy(window, org_id=target.org_id, subscription=target.subscription)
    return moment_for(there, orgs, policy, now_us).held


def _retarget(window: Window, target: Target, policy: MeterPolicy, rates: Rates | None) -> Window:
    length = policy.window_us if window.metered is None else 0
    start = window.max_end_us - window.max_end_us % length if length else window.max_end_us
    where = {"org_id": target.org_id, "subscription": target.subscription, "held": ""}
    rated = window.rated
    if rated is not None and rates is not None and (card := rates.of(rated.rate)) is not None:
        factor = rates.factor(card, target.org_id, target.subscription, window.max_end_us)
        rated = Rated(rated.rate, factor, rated.usd)
    return copy(window, start_us=start, length_us=length, rated=rated, **where)


def _merge(changes: Changes, moved: dict[WindowKey, Window], ledger: LedgerState, window: Window) -> None:
    """Merge `window` into the window with the same key, unless that one consists of `MOST_MERGED` windows.

    The other window does not move in the same step: open windows never move, and a held window with the key of a known
    time span stays (`_covers`).
    """
    key = window_key(window)
    into = moved.get(key)
    if into is None:
        first = ledger.index.get(key)
        into = ledger.windows[first] if first is not None and first != window.first else None
    if into is not None and len(into.merged) + len(window.merged) >= MOST_MERGED:
        changes.windows[into.first] = into
        into = None
    moved[key] = window if into is None else merged(into, window)


def _priced(window: Window) -> Decimal:
    return ZERO if window.rated is None else window.rated.usd


def merged(into: Window, window: Window) -> Window:
    """Combine two windows under the first offset of `into`; every sum is exact."""
    with localcontext(EXACT):
        return copy(
            into,
            last=max(into.last, window.last),
            min_end_us=min(into.min_end_us, window.min_end_us),
            max_end_us=max(into.max_end_us, window.max_end_us),
            count=into.count + window.count,
            cost=into.cost + window.cost,
            rated=into.rated and Rated(into.rated.rate, into.rated.factor, into.rated.usd + _priced(window)),
            merged=(*into.merged, window.first, *window.merged),
            **{name: getattr(into, name) + getattr(window, name) for name in TOKENS},
        )
