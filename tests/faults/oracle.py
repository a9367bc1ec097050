"""The conditions that must hold after the faults: every check takes plain data and returns the violations as sentences."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

from schemas.records import EnrichedUsage, LagoEvent, Receipt
from streams.core.metering.conservation import difference
from streams.core.metering.ledger_state import LedgerState
from tests.faults.calls import CallKey, Owed, Sum

_BILLED = ("billable", "failed_with_cost")
_REPEATED = "duplicate"
_METERED = "metered"
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class SentEvent:
    """A record of `billing.lago.events`."""

    raw_partition: int
    seal_seq: int
    event: LagoEvent


@dataclass(slots=True)
class Found:
    """The contents of the topics and of Lago.

    Fields:
        stats, lago_events: the sandbox's `/__stats` and `/__events`.
        raw_ends: records of each raw partition.
        ledger: the ledger of each raw partition, read back from its changelog.
        enriched: by raw partition, in order.
        receipts: in order of each event's own.
    """

    stats: dict[str, Any] = field(default_factory=dict)
    lago_events: list[dict[str, Any]] = field(default_factory=list)
    raw_ends: dict[int, int] = field(default_factory=dict)
    ledger: dict[int, LedgerState] = field(default_factory=dict)
    events: list[SentEvent] = field(default_factory=list)
    enriched: dict[int, list[EnrichedUsage]] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    rejected: int = 0
    dead: int = 0


def verdict(
    found: Found, owed: Owed, subscription_of: Mapping[str, str], subscription_of_org: Mapping[str, str] | None = None
) -> list[str]:
    """Return all violations; empty if every call is billed exactly once and all ledgers agree.

    Args:
        subscription_of, subscription_of_org: where the calls of a customer, and the metered events of an org, belong.
    """
    return [
        *billing_wrong(found.stats, owed.by_subscription(subscription_of)),
        *ledgers_wrong(found.ledger, found.raw_ends, owed),
        *seals_wrong(found.events),
        *events_wrong(found.events, found.lago_events),
        *metered_wrong(found.lago_events, owed, subscription_of_org or {}),
        *receipts_wrong(found.events, found.receipts),
        *enriched_wrong(found.enriched, owed),
        *([f"{found.rejected} records in the rejected topic"] if found.rejected else []),
        *([f"{found.dead} dead letters"] if found.dead else []),
    ]


def billing_wrong(stats: Mapping[str, Any], owed: Mapping[str, Sum]) -> list[str]:
    """Compare calls, tokens and cents of every subscription at Lago with the owed ones, as Decimals."""
    wrong = []
    billed: Mapping[str, Any] = stats.get("subscriptions", {})
    for subscription in sorted(owed.keys() | billed.keys()):
        due, got = owed.get(subscription, Sum()), billed.get(subscription, {})
        for what, expected in (("calls", due.calls), ("tokens", due.tokens), ("cents", due.cents)):
            off = Decimal(got.get(what, 0)) - expected
            if off:
                wrong.append(
                    f"{subscription}: {off:+f} {what} of {expected:f}"
                    if what == "cents"
                    else f"{subscription}: {off:+} {what} of {expected}"
                )
        if Decimal(got.get("billed_cents", 0)) != Decimal(got.get("cents", 0)):
            wrong.append(f"{subscription}: {got['cents']} cents stored, {got['billed_cents']} inside a period")
    if stats.get("conflicts"):
        wrong.append(f"{stats['conflicts']} transaction ids were offered with two contents")
    return wrong


def ledgers_wrong(ledger: Mapping[int, LedgerState], raw_ends: Mapping[int, int], owed: Owed) -> list[str]:
    """Check both conservation laws, that nothing is open or held, that every raw record is folded, and the sums of the
    sent calls.
    """
    wrong = []
    for partition, end in sorted(raw_ends.items()):
        its = ledger[partition]
        if its.position.next != end:
            wrong.append(f"ledger {partition} stands at {its.position.next} of {end}")
        received, folded = difference(its.position.counters, its.windows.values())
        wrong += [
            f"ledger {partition}: {law} is off by {off.calls} calls, {off.cost} dollars"
            for law, off in (("received", received), ("folded", folded))
            if off.calls or off.cost
        ]
        if its.windows:
            held = sum(1 for window in its.windows.values() if window.held)
            wrong.append(f"ledger {partition}: {len(its.windows)} windows are left, {held} of them held")
    counters = [its.position.counters for its in ledger.values()]
    billed = sum(1 for _ in owed.billed())
    for what, got, expected in (
        ("received", sum(c.received.calls for c in counters), sum(raw_ends.values())),
        ("sealed", sum(c.sealed.calls for c in counters), billed + len(owed.metered)),
        ("unbilled", sum(c.unbilled.calls for c in counters), len(owed.calls) - billed),
        ("rejected", sum(c.rejected.calls for c in counters), 0),
        ("written off", sum(c.written_off.calls for c in counters), 0),
        ("sealed dollars", sum((c.sealed.cost for c in counters), Decimal(0)), owed.dollars()),
    ):
        if got != expected:
            wrong.append(f"ledgers: {got} {what}, {expected} expected")
    return wrong


def seals_wrong(events: Iterable[SentEvent]) -> list[str]:
    """Check that `seal_seq` is contiguous from 1 in every raw partition and that no transaction id comes twice; return
    the violations.
    """
    events = list(events)
    numbers: dict[int, list[int]] = defaultdict(list)
    for sent in events:
        numbers[sent.raw_partition].append(sent.seal_seq)
    wrong = []
    for partition, seqs in sorted(numbers.items()):
        if sorted(seqs) != list(range(1, len(seqs) + 1)):
            missing = sorted(set(range(1, max(seqs) + 1)) - set(seqs))
            twice = [seq for seq, times in Counter(seqs).items() if times > 1]
            wrong.append(f"seal_seq of partition {partition}: missing {missing[:_SHOWN]}, twice {twice[:_SHOWN]}")
    ids = Counter(sent.event.transaction_id for sent in events)
    return wrong + _some(sorted(name for name, times in ids.items() if times > 1), "in the events topic more than once")


def events_wrong(events: Iterable[SentEvent], lago: Iterable[Mapping[str, Any]]) -> list[str]:
    """Check that Lago has exactly the events of the topic, each once and byte for byte."""
    sent = {one.event.transaction_id: _content(one.event) for one in events}
    lago = list(lago)
    got = {one["transaction_id"]: _content_at_lago(one) for one in lago}
    times = Counter(one["transaction_id"] for one in lago)
    return [
        *_some(sorted(sent.keys() - got.keys()), "sealed, never stored at Lago"),
        *_some(sorted(got.keys() - sent.keys()), "stored at Lago, never sealed"),
        *_some(
            sorted(name for name in sent.keys() & got.keys() if sent[name] != got[name]), "of another content at Lago"
        ),
        *_some(sorted(name for name, number in times.items() if number > 1), "stored at Lago more than once"),
    ]


def metered_wrong(lago: Iterable[Mapping[str, Any]], owed: Owed, subscription_of_org: Mapping[str, str]) -> list[str]:
    """Check that every recorded event is at Lago once, on its org's subscription, with its properties; it has no price
    of its own.
    """
    expected = Counter(
        (subscription_of_org[org], name, tuple(sorted(properties.items())))
        for name, (org, properties) in owed.metered.items()
    )
    got: Counter[Any] = Counter()
    for event in lago:
        properties = dict(event["properties"])
        name = properties.pop("transaction_id", None)
        if name is not None and properties.pop("org_id", None):
            properties.pop("usage_end", None)
            got[event["external_subscription_id"], name, tuple(sorted(properties.items()))] += 1
    return [
        *_some(sorted((expected - got).keys()), "recorded, not at Lago as recorded"),
        *_some(sorted((got - expected).keys()), "at Lago, not recorded so, or once too often"),
    ]


def receipts_wrong(events: Iterable[SentEvent], receipts: Iterable[Receipt]) -> list[str]:
    """Check that every event ends as completed; return the violations."""
    last = {receipt.transaction_id: receipt.status for receipt in receipts}
    ids = {sent.event.transaction_id for sent in events}
    wrong = [
        f"{name} ends {last.get(name, 'without a receipt')}" for name in sorted(ids) if last.get(name) != "completed"
    ]
    return _cut(wrong) + _some(sorted(last.keys() - ids), "receipts without an event")


def enriched_wrong(enriched: Mapping[int, Sequence[EnrichedUsage]], owed: Owed) -> list[str]:
    """Check that there is one record per call, billed or not, in the order of the raw topic, and that each billed call
    has the owed cost.
    """
    wrong: list[str] = []
    for partition, records in sorted(enriched.items()):
        if any(later.offset <= earlier.offset for earlier, later in pairwise(records)):
            wrong.append(f"enriched {partition}: an offset comes twice or out of order")
    all_found = [record for records in enriched.values() for record in records if record.decision != _REPEATED]
    found = [record for record in all_found if record.decision != _METERED]
    if len(all_found) - len(found) != len(owed.metered):
        wrong.append(f"{len(all_found) - len(found)} metered events enriched, {len(owed.metered)} recorded")
    times = Counter(map(_key, found))
    identities = Counter(record.identity for record in found)
    billed = {_key(record) for record in found if record.decision in _BILLED}
    due = {key for key, _ in owed.billed()}
    wrong += _some(sorted(owed.calls.keys() - times.keys()), "sent, not enriched")
    wrong += _some(sorted(times.keys() - owed.calls.keys()), "enriched, never sent")
    wrong += _some(sorted(key for key, number in times.items() if number > 1), "enriched more than once")
    wrong += _some(sorted(name for name, number in identities.items() if number > 1), "identities more than once")
    wrong += _some(sorted(due - billed), "owed, not billed")
    wrong += _some(sorted(billed - due), "billed, not owed")
    off = [
        _key(r)
        for r in found
        if _key(r) in due and (r.customer_id, r.cost_usd, r.total_tokens) != owed.calls[_key(r)][:3]
    ]
    return wrong + _some(off, "of another customer, cost or tokens")


def _key(record: EnrichedUsage) -> CallKey:
    return record.call_id, record.request_id, record.status


def _content(event: LagoEvent) -> tuple[Any, ...]:
    cents = Decimal(event.precise_total_amount_cents)
    return (event.external_subscription_id, event.code, cents, event.properties)


def _content_at_lago(event: Mapping[str, Any]) -> tuple[Any, ...]:
    cents = Decimal(event["precise_total_amount_cents"])
    return (event["external_subscription_id"], event["code"], cents, event["properties"])


def _some(names: Sequence[Any], what: str) -> list[str]:
    return [f"{len(names)} {what}: {', '.join(map(str, names[:_SHOWN]))}"] if names else []


def _cut(wrong: list[str]) -> list[str]:
    return wrong if len(wrong) <= _SHOWN else [*wrong[:_SHOWN], f"... and {len(wrong) - _SHOWN} more"]
