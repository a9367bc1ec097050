"""The fold: records of a raw partition, in order, become changes to its books.

The hot path. A chunk is read in three passes, so that the lookup of remembered identities is one
call for all of it: decode and normalise; look up; fold.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import localcontext
from hashlib import sha256
from itertools import islice
from typing import Protocol

import msgspec

from schemas.errors import Rejected
from schemas.ledger import Counters, Sum, Window, WindowKey
from schemas.moments import HOUR_US
from schemas.money import EXACT, ZERO, quantum
from schemas.policy import MeterPolicy
from schemas.records import Rejection
from schemas.usage import Usage
from streams.core.books import Books
from streams.core.changes import Changes
from streams.core.decisions import BILLED, DUPLICATE, METERED, REJECTED, decide
from streams.core.enrich import Enricher
from streams.core.mapping import Target
from streams.core.reading import usage_of
from streams.core.seal import HELD_LENGTH_US

HOUR_MS = 3_600_000
#: Refused, and put back once their org has a subscription: an operator sees them among the refused calls.
TOO_MANY_HELD = "too_many_held"
#: Identity chunks deleted from the changelog a step, an hour's at a time: bounds the transaction.
_DROPS = 500


_encode = msgspec.json.Encoder().encode
copy = msgspec.structs.replace


class Record(Protocol):
    """What the fold reads of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


Resolve = Callable[[str, int, str], Target]


class Fold:
    """Folds chunks of one partition under one policy; pure apart from its caches."""

    def __init__(self, policy: MeterPolicy, prefix: str) -> None:
        self._policy = policy
        self._prefix = prefix
        self._unit = quantum(policy.cost_decimals)
        self._enricher = Enricher(prefix)

    def __call__(self, books: Books, records: Sequence[Record], resolve: Resolve) -> Changes:
        """The changes that folding `records` makes; `books` is not touched.

        `resolve(customer_id, end_us, id_kind)` gives a call's target. Folding a record below
        `books.position.next` is the caller's error.
        """
        with localcontext(EXACT):
            return self._fold(books, records, resolve)

    def _read(self, record: Record) -> Usage | Rejected:
        try:
            return usage_of(record.value, record.key.decode() if record.key else "", self._unit)
        except Rejected as refusal:
            return refusal
        except UnicodeDecodeError as error:
            return Rejected("malformed", type(error).__name__)

    def _fold(self, books: Books, records: Sequence[Record], resolve: Resolve) -> Changes:
        policy, position = self._policy, books.position
        usages = [self._read(record) for record in records]
        identities = [usage.identity for usage in usages if type(usage) is Usage]
        known = iter(books.seen.contains(identities))
        new: dict[bytes, None] = {}
        touched: dict[WindowKey, Window] = {}
        changes = Changes(position)
        decisions, enriched = changes.decisions, changes.enriched
        enrich = self._enricher
        clock_ms = position.clock_ms
        folded_calls = duplicate_calls = unbilled_calls = rejected_calls = 0
        room = policy.max_held_metered - len(books.metered)
        folded_cost = duplicate_cost = unbilled_cost = rejected_cost = ZERO
        oldest_us = self._oldest_us(clock_ms)
        for record, usage in zip(records, usages, strict=True):
            if record.timestamp > clock_ms:
                clock_ms = record.timestamp
                oldest_us = self._oldest_us(clock_ms)
            if isinstance(usage, Rejected):
                self._reject(changes, record, usage)
                rejected_calls += 1
                continue
            identity, cost = usage.identity, usage.cost
            if next(known) or identity in new or (usage.twins and _has_twin(books, new, usage.twins)):
                duplicate_calls += 1
                duplicate_cost += cost
                decisions[DUPLICATE] = decisions.get(DUPLICATE, 0) + 1
                continue
            if usage.end_us < oldest_us and usage.checked_us < oldest_us:
                self._reject(changes, record, Rejected("beyond_horizon"))
                rejected_calls += 1
                rejected_cost += cost
                continue
            decision = decide(usage, policy)
            if decision in BILLED:
                target = resolve(usage.customer_id, usage.end_us, usage.id_kind)
                window = self._window(books, touched, usage, target, record.offset)
                _add(window, usage, record.offset)
                folded_calls += 1
                folded_cost += cost
                enriched.append((record.key, enrich(usage, record.offset, decision, target, window)))
            elif decision != METERED:
                unbilled_calls += 1
                unbilled_cost += cost
                enriched.append((record.key, enrich(usage, record.offset, decision, None, None)))
            elif identity in books.metered:  # held for longer than identities are remembered
                duplicate_calls += 1
                decision = DUPLICATE
            else:
                target = resolve(usage.customer_id, usage.end_us, usage.id_kind)
                if target.held and room <= 0:
                    self._reject(changes, record, Rejected(TOO_MANY_HELD))
                    rejected_calls += 1
                    continue
                room -= bool(target.held)
                window = _by_itself(changes, usage, target, record.offset)
                folded_calls += 1
                enriched.append((record.key, enrich(usage, record.offset, decision, target, window)))
            new[identity] = None
            if usage.twins:
                new.update(dict.fromkeys(usage.twins))
            decisions[decision] = decisions.get(decision, 0) + 1
        for window in touched.values():
            changes.windows[window.first] = window
        changes.position = copy(
            position,
            next=records[-1].offset + 1,
            clock_ms=clock_ms,
            counters=_counted(
                position.counters,
                folded=Sum(folded_calls, folded_cost),
                duplicate=Sum(duplicate_calls, duplicate_cost),
                rejected=Sum(rejected_calls, rejected_cost),
                unbilled=Sum(unbilled_calls, unbilled_cost),
            ),
        )
        self._remember(books, changes, new, records[0].offset)
        return changes

    def _oldest_us(self, clock_ms: int) -> int:
        """Calls that ended before this could be repeats of forgotten ones: the horizon and an hour's margin.

        So could those that were checked against the usage log before it: what has been folded since is known.
        """
        return clock_ms * 1000 - self._policy.horizon_us + HOUR_US

    def _window(
        self, books: Books, touched: dict[WindowKey, Window], usage: Usage, target: Target, offset: int
    ) -> Window:
        policy = self._policy
        length = policy.window_us
        if target.held and length:
            length = HELD_LENGTH_US
        start = usage.end_us - usage.end_us % length if length else usage.end_us
        group = tuple([getattr(usage, name) for name in policy.group_by]) if policy.group_by else ()
        identity = b"" if length else usage.identity
        kind = usage.id_kind if target.held else ""
        key = (usage.customer_id, target.subscription, kind, usage.model, usage.provider, group, start, identity)
        window = touched.get(key)
        if window is None:
            first = books.index.get(key)
            if first is not None:
                window = copy(books.windows[first])
            else:
                window = Window(
                    offset,
                    offset,
                    usage.customer_id,
                    usage.id_kind,
                    target.org_id,
                    target.subscription,
                    target.held,
                    usage.model,
                    usage.provider,
                    group,
                    start,
                    length,
                    usage.end_us,
                    usage.end_us,
                    identity=identity,
                )
            touched[key] = window
        return window

    def _remember(self, books: Books, changes: Changes, new: dict[bytes, None], first: int) -> None:
        """Store the new identities under the hour of the clock; forget hours beyond the horizon."""
        hour = changes.position.clock_ms // HOUR_MS
        changes.seen, changes.seen_hour, changes.seen_first = b"".join(new), hour, first
        oldest = hour - self._policy.horizon_us // HOUR_US
        changes.position.dropped_hour = max(oldest, changes.position.dropped_hour)
        for past, chunks in books.seen_chunks.items():
            if past < oldest and len(changes.dropped) < _DROPS:
                changes.dropped.extend((past, chunk) for chunk in islice(chunks, _DROPS))

    @staticmethod
    def _reject(changes: Changes, record: Record, refusal: Rejected) -> None:
        label = f"{REJECTED}:{refusal.reason}"
        changes.decisions[label] = changes.decisions.get(label, 0) + 1
        value = record.value or b""
        rejection = Rejection(
            refusal.reason, "meter", record.timestamp * 1000, refusal.detail, record.offset, length=len(value)
        )
        if refusal.reason == "malformed":
            rejection.sha256 = sha256(value).hexdigest()
        else:
            rejection.call = msgspec.Raw(value)
        changes.rejected.append((record.key, _encode(rejection)))


def _has_twin(books: Books, new: Mapping[bytes, None], twins: Sequence[bytes]) -> bool:
    return any(twin in new for twin in twins) or any(books.seen.contains(twins))


def _by_itself(changes: Changes, usage: Usage, target: Target, offset: int) -> Window:
    """A window of one event of others, which none is ever added to."""
    at_us = usage.end_us
    whose = (usage.customer_id, usage.id_kind, target.org_id, target.subscription, target.held)
    window = Window(offset, offset, *whose, "", "", (), at_us, 0, at_us, at_us, 1)
    window.identity, window.metered = usage.identity, usage.metered
    changes.windows[offset] = window
    if not target.held:
        changes.ready.append(window)
    return window


def _add(window: Window, usage: Usage, offset: int) -> None:
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


def _counted(counters: Counters, **now: Sum) -> Counters:
    sums = {name: _plus(getattr(counters, name), more) for name, more in now.items()}
    received = counters.received
    for more in now.values():
        received = _plus(received, more)
    return copy(counters, received=received, **sums)


def _plus(a: Sum, b: Sum) -> Sum:
    return Sum(a.calls + b.calls, a.cost + b.cost)
