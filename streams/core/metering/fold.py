"""The fold: records of a raw partition, in order, become changes to its books.

The hot path. A chunk is read in three passes, so that the lookup of remembered identities is one
call for all of it: decode and normalise; look up; fold.
"""

from collections.abc import Callable, Sequence
from decimal import localcontext
from hashlib import sha256
from typing import Protocol

import msgspec

from schemas.errors import Rejected
from schemas.ledger import HELD_LENGTH_US, Position, Sum, Window, WindowKey
from schemas.moments import HOUR_US
from schemas.money import EXACT, ZERO, quantum
from schemas.policy import MeterPolicy
from schemas.records import Rejection
from schemas.usage import Usage
from schemas.wire import FLAT, SLP
from streams.core.mapping.resolve import Target
from streams.core.metering.call_kinds import UNKNOWN
from streams.core.metering.call_meaning import SEALED
from streams.core.metering.chunk_memory import HOUR_MS, JOB_HORIZON_US, ChunkMemory, tag_of
from streams.core.metering.chunk_totals import added_to, by_decision_of, counted, set_apart, total_of
from streams.core.metering.decisions import BILLABLE, BILLED, DUPLICATE, METERED, REJECTED, UNBILLED, UNPRICED, decide
from streams.core.metering.dedupe_set import HOURS_APART
from streams.core.metering.duplicate_routes import Routes
from streams.core.metering.enrich import Enricher
from streams.core.metering.known_identities import COSTLESS, FINGERPRINTS, NEVER, SETTLED, differs
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.normalise import FUTURE_US
from streams.core.metering.notices import ASSUMED_REPEAT, COST_DIFFERS
from streams.core.metering.plausible_cost import IMPLAUSIBLE_COST, implausible
from streams.core.metering.read_usage import usage_of
from streams.core.metering.step_changes import Changes

#: LiteLLM's own payloads: alone they are one route, and cost no look.
_MAIN_SHAPES = frozenset({SLP, FLAT})
#: For a clock that follows every record.
NO_LIMIT_MS = 1 << 62
#: How far beyond the clock a record is believed: a worker's may be slow. An identity is remembered so far ahead.
LEAD_MS = 48 * HOUR_MS
_OLD = Rejected("beyond_horizon")
_AHEAD = Rejected("beyond_horizon", "the record's time is days ahead of this worker's clock")
#: Refused, and put back once their org has a subscription: an operator sees them among the refused calls.
TOO_MANY_HELD = "too_many_held"


_encode = msgspec.json.Encoder().encode
copy = msgspec.structs.replace


class Record(Protocol):
    """What the fold reads of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


#: Of a customer's call, or, with the metric's code as a fourth argument, of an org's usage.
Resolve = Callable[..., Target]


class Fold:
    """Folds chunks of one partition under one policy; pure apart from its caches."""

    def __init__(self, policy: MeterPolicy, prefix: str) -> None:
        self._policy = policy
        self._prefix = prefix
        self._unit = quantum(policy.cost_decimals)
        self._enricher = Enricher(prefix)
        self.routes = Routes()
        #: What costs no more is plausible, whatever it is.
        self._plausible = min(policy.max_usd_per_call, policy.max_usd_per_token)
        self._lead_ms = min(LEAD_MS, HOURS_APART * HOUR_MS - policy.horizon_us // 1000)

    def __call__(
        self, books: LedgerState, records: Sequence[Record], resolve: Resolve, latest_ms: int = NO_LIMIT_MS
    ) -> Changes:
        """The changes that folding `records` makes; `books` is not touched.

        Args:
            resolve: `resolve(customer_id, end_us, id_kind)` gives a call's target.
            latest_ms: the worker's own clock and `FUTURE_US`, milliseconds since 1970 UTC: a call's end up to there is
                believed, and a record time beyond it does not move the partition's clock further. A clock that stands behind the truth costs nothing but memory; one ahead of it shuts calls out.

        Folding a record below `books.position.next` is the caller's error.
        """
        with localcontext(EXACT):
            return self._fold(books, records, resolve, latest_ms)

    def _read(self, record: Record, witness_us: int) -> Usage | Rejected:
        try:
            customer = record.key.decode() if record.key else ""
            usage = usage_of(record.value, customer, self._unit, record.timestamp * 1000, witness_us)
            if self.routes.watching or usage.shape not in _MAIN_SHAPES:
                self.routes.saw(usage.shape, customer, record.timestamp)
            return usage
        except Rejected as refusal:
            return refusal
        except UnicodeDecodeError as error:
            return Rejected("malformed", type(error).__name__)

    def _fold(self, books: LedgerState, records: Sequence[Record], resolve: Resolve, latest_ms: int) -> Changes:
        policy, position = self._policy, books.position
        lead_ms = self._lead_ms
        newest_ms = clock_ms = position.clock_ms
        worker_us = 0 if latest_ms == NO_LIMIT_MS else latest_ms * 1000 - FUTURE_US
        usages = []
        for record in records:
            if record.timestamp > clock_ms:
                clock_ms = max(clock_ms, min(record.timestamp, latest_ms))
                if record.timestamp <= clock_ms + lead_ms:
                    newest_ms = max(newest_ms, record.timestamp)
            usage = self._read(record, max(clock_ms * 1000, worker_us))
            usages.append(usage)
            if type(usage) is Usage:  # a repeat may come when the clock has reached that end, or confirms it
                told_ms = (usage.told_end_us or usage.end_us) // 1000
                if told_ms > newest_ms:
                    newest_ms = max(newest_ms, min(told_ms, clock_ms + lead_ms))
        memory = ChunkMemory(books, [usage for usage in usages if type(usage) is Usage])
        known, new = iter(memory.known), memory.new
        touched: dict[WindowKey, Window] = {}
        changes = Changes(position)
        decisions, enriched = changes.decisions, changes.enriched
        enrich = self._enricher
        clock_ms = position.clock_ms
        folded_calls = duplicate_calls = rejected_calls = 0
        room = policy.max_held_metered - len(books.metered)
        folded_cost = duplicate_cost = rejected_cost = ZERO
        apart: dict[str, Sum] = {}
        oldest_us = self._oldest_us(clock_ms, position)
        for record, usage in zip(records, usages, strict=True):
            if clock_ms < record.timestamp and clock_ms < latest_ms:
                clock_ms = min(record.timestamp, latest_ms)
                oldest_us = self._oldest_us(clock_ms, position)
            if isinstance(usage, Rejected):
                self._reject(changes, record, usage)
                rejected_calls += 1
                continue
            identity, cost = usage.identity, usage.cost
            stored = next(known)
            tag = new.get(identity, stored)
            if usage.twins or usage.job:
                tag = memory.also(usage, tag)
            if tag != NEVER and (tag != COSTLESS or decide(usage, policy) not in BILLED):
                duplicate_calls += 1
                duplicate_cost += cost
                decisions[DUPLICATE] = decisions.get(DUPLICATE, 0) + 1
                if cost and differs(tag, cost):
                    self._tell_difference(changes, record, usage)
                if usage.job is identity:
                    memory.told_again(usage, tag, clock_ms)
                    if cost and usage.note == SEALED:
                        changes.noticed.doubt(ASSUMED_REPEAT, cost)
                continue
            is_old = (
                usage.end_us < oldest_us
                and usage.checked_us < oldest_us
                and tag == NEVER
                and _beyond_its_horizon(usage, clock_ms, position.forgot_us)
            )
            if is_old or record.timestamp > clock_ms + lead_ms:
                self._reject(changes, record, _OLD if is_old else _AHEAD)
                rejected_calls += 1
                rejected_cost += cost
                continue
            decision = decide(usage, policy)
            if decision in BILLED:
                if cost > self._plausible and implausible(usage, policy):
                    self._reject(changes, record, Rejected(IMPLAUSIBLE_COST, f"{cost:f} USD"))
                    changes.noticed.doubt(IMPLAUSIBLE_COST, cost)
                    rejected_calls += 1
                    rejected_cost += cost
                    continue
                if decision != BILLABLE:
                    set_apart(apart, decision, cost)
                target = resolve(usage.customer_id, usage.end_us, usage.id_kind)
                window = self._window(books, touched, usage, target, record.offset)
                _add(window, usage, record.offset)
                folded_calls += 1
                folded_cost += cost
                enriched.append((record.key, enrich(usage, record.offset, decision, target, window)))
            elif decision != METERED:
                set_apart(apart, decision, cost)
                if decision == UNPRICED:
                    changes.noticed.without_price(usage.model)
                enriched.append((record.key, enrich(usage, record.offset, decision, None, None)))
            elif identity in books.metered:  # held for longer than identities are remembered
                duplicate_calls += 1
                decision = DUPLICATE
            else:
                code = usage.metered.code if usage.metered is not None else ""
                target = resolve(usage.customer_id, usage.end_us, usage.id_kind, code)
                if target.held and room <= 0:
                    self._reject(changes, record, Rejected(TOO_MANY_HELD))
                    rejected_calls += 1
                    continue
                room -= bool(target.held)
                window = _by_itself(changes, usage, target, record.offset)
                folded_calls += 1
                set_apart(apart, decision, cost)
                enriched.append((record.key, enrich(usage, record.offset, decision, target, window)))
            if usage.kind == UNKNOWN:
                changes.noticed.of_unknown_type(usage.call_type)
            # `tag_of`, unrolled for the usual call.
            tag = hash(cost) % FINGERPRINTS + SETTLED if cost else tag_of(usage, billed=decision not in UNBILLED)
            new[identity] = tag
            if stored == COSTLESS:
                memory.reopen(identity)
            if usage.twins or usage.job:
                memory.keep(usage, tag, clock_ms)
            decisions[decision] = decisions.get(decision, 0) + 1
        for window in touched.values():
            changes.windows[window.first] = window
        by_decision = by_decision_of(apart, folded_calls, folded_cost)
        unbilled = total_of(by_decision, UNBILLED)
        changes.position = copy(
            position,
            decisions=added_to(position.decisions, by_decision),
            next=records[-1].offset + 1,
            clock_ms=clock_ms,
            counters=counted(
                position.counters,
                folded=Sum(folded_calls, folded_cost),
                duplicate=Sum(duplicate_calls, duplicate_cost),
                rejected=Sum(rejected_calls, rejected_cost),
                unbilled=unbilled,
            ),
        )
        memory.write(changes, records[0].offset, policy.horizon_us, max(newest_ms, clock_ms) // HOUR_MS)
        return changes

    def _oldest_us(self, clock_ms: int, position: Position) -> int:
        """Calls that ended before this could be repeats of forgotten ones: the horizon and an hour's margin.

        What a shorter horizon made the ledger forget stays forgotten under a longer one. So could those that were checked against the usage log before it: what has been folded since is known.
        """
        forgotten_us = max(clock_ms * 1000 - self._policy.horizon_us, position.dropped_hour * HOUR_US)
        return max(forgotten_us + HOUR_US, position.forgot_us)

    def _window(
        self, books: LedgerState, touched: dict[WindowKey, Window], usage: Usage, target: Target, offset: int
    ) -> Window:
        policy = self._policy
        length = policy.window_us
        if target.held and length:
            length = HELD_LENGTH_US
        start = usage.end_us - usage.end_us % length if length else usage.end_us
        group = tuple([getattr(usage, name) for name in policy.group_by]) if policy.group_by else ()
        identity = b"" if length else usage.identity
        kind = usage.id_kind if target.held else ""
        key = (
            usage.customer_id,
            target.org_id,
            target.subscription,
            kind,
            usage.model,
            usage.provider,
            policy.group_by,
            group,
            start,
            length,
            identity,
        )
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
                    group_names=policy.group_by,
                )
            touched[key] = window
        return window

    def _tell_difference(self, changes: Changes, record: Record, usage: Usage) -> None:
        """Keep a copy with another cost aside; the counters know it as the duplicate that it is."""
        detail = f"this copy costs {usage.cost:f} USD, what was settled does not"
        changes.rejected.append((record.key, _encode(_rejection_of(record, Rejected(COST_DIFFERS, detail)))))
        changes.noticed.doubt(COST_DIFFERS, usage.cost)

    @staticmethod
    def _reject(changes: Changes, record: Record, refusal: Rejected) -> None:
        label = f"{REJECTED}:{refusal.reason}"
        changes.decisions[label] = changes.decisions.get(label, 0) + 1
        changes.rejected.append((record.key, _encode(_rejection_of(record, refusal))))


def _rejection_of(record: Record, refusal: Rejected) -> Rejection:
    value = record.value or b""
    rejection = Rejection(
        refusal.reason, "meter", record.timestamp * 1000, refusal.detail, record.offset, length=len(value)
    )
    if refusal.reason == "malformed":
        rejection.sha256 = sha256(value).hexdigest()
    else:
        rejection.call = msgspec.Raw(value)
    return rejection


def _beyond_its_horizon(usage: Usage, clock_ms: int, forgot_us: int) -> bool:
    """Whether a call that is older than the horizon may have been forgotten; jobs are remembered for longer.

    `forgot_us`: of the position; the jobs of a ledger that is gone are forgotten, too.
    """
    if usage.job is not usage.identity:
        return True
    oldest_us = max(clock_ms * 1000 - JOB_HORIZON_US + HOUR_US, forgot_us)
    return usage.end_us < oldest_us and usage.checked_us < oldest_us


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
