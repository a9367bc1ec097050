"""The fold: turns the records of a raw partition, in order, into changes of the partition's ledger.

This is the hot path. A batch is read in three passes: decode and normalise, look up, fold. So the remembered identities
of the whole batch are looked up in one call.
"""

from collections.abc import Callable, Sequence
from decimal import localcontext

from schemas.bounded_name import bounded_name
from schemas.errors import Rejected
from schemas.ledger import Rated, RateKey, Sum, Window, WindowKey
from schemas.money import EXACT, ZERO
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from schemas.reasons import TOO_LARGE
from schemas.record_sizes import MOST_CALL_BYTES, is_outsized_call
from schemas.rounding import quantum
from schemas.wire import FLAT, SLP
from streams.core.mapping.resolve import Target
from streams.core.metering.batch_identities import HOUR_MS, BatchIdentities, tag_of
from streams.core.metering.batch_totals import moved, set_apart
from streams.core.metering.call_kinds import UNKNOWN
from streams.core.metering.decisions import (
    BILLABLE,
    BILLED,
    CARRIED,
    FAILED_WITH_COST,
    METERED,
    REJECTED,
    UNBILLED,
    UNPRICED,
    decide,
)
from streams.core.metering.dedupe_set import HOURS_APART
from streams.core.metering.duplicate_routes import Routes
from streams.core.metering.enrich import Enricher
from streams.core.metering.failed_attempts import after_carried, is_carried, mark_of, without_attempts
from streams.core.metering.forgotten_calls import may_be_forgotten, oldest_us
from streams.core.metering.known_identities import COSTLESS, FINGERPRINTS, NEVER, SETTLED, differs
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.normalise import FUTURE_US
from streams.core.metering.plausible_cost import IMPLAUSIBLE_COST, implausible
from streams.core.metering.rated_calls import rated
from streams.core.metering.read_usage import usage_of
from streams.core.metering.step_changes import Changes
from streams.core.metering.uncounted_records import Record, reject, repeat
from streams.core.metering.window_contents import add_call, add_metered_event, window_of
from streams.core.pricing.cards import Rates

#: LiteLLM's own payloads share one route. While no other payloads arrive, routes are not recorded.
_MAIN_SHAPES = frozenset({SLP, FLAT})
#: The limit of a partition clock that has no limit: it follows every record.
NO_LIMIT_MS = 1 << 62
#: A record is accepted up to this time ahead of the partition clock, because a worker's clock may be slow. Its identity
#: is remembered longer by the same time.
LEAD_MS = 48 * HOUR_MS
_OUTSIZED = Rejected(TOO_LARGE, f"a record of a call may have {MOST_CALL_BYTES} bytes")
_OLD = Rejected("beyond_horizon")
_AHEAD = Rejected("beyond_horizon", "the record's time is days ahead of this worker's clock")
#: Reason: the call is refused. It can be requeued once its org has a subscription; an operator sees it among the
#: refused calls.
TOO_MANY_HELD = "too_many_held"

#: Finds the target of a customer's call by (customer id, end, id kind). For an org's usage the metric's code is the
#: fourth argument.
Resolve = Callable[..., Target]


class Fold:
    """Folds batches of one partition under one policy; pure apart from its caches."""

    def __init__(self, policy: MeterPolicy, prefix: str) -> None:
        self._policy = policy
        self._prefix = prefix
        self._unit = quantum(policy.cost_decimals)
        self._enricher = Enricher(prefix)
        self.routes = Routes()
        #: A cost up to this is plausible for any call, so no further check is made.
        self._plausible = min(policy.max_usd_per_call, policy.max_usd_per_token)
        self._lead_ms = min(LEAD_MS, HOURS_APART * HOUR_MS - policy.dedupe_retention_us // 1000)

    def __call__(
        self,
        ledger: LedgerState,
        records: Sequence[Record],
        resolve: Resolve,
        latest_ms: int = NO_LIMIT_MS,
        rates: Rates | None = None,
    ) -> Changes:
        """Return the changes that `records` cause. `ledger` itself is not changed.

        Args:
            records: records in order, without a gap, from `ledger.position.next` on. The caller checks this.
            resolve: `resolve(customer_id, end_us, id_kind)` returns a call's target.
            latest_ms: the worker's own clock plus `FUTURE_US`, milliseconds since 1970 UTC. A call's end up to it is
                accepted, and a later record time does not move the partition clock further. A worker clock that is slow
                costs only memory; one that is fast refuses calls.
            rates: the versions of the rate card; None = there are none.
        """
        with localcontext(EXACT):
            return self._fold(ledger, records, resolve, latest_ms, rates)

    def _read(self, record: Record, witness_us: int) -> Usage | Rejected:
        if is_outsized_call(record):
            return _OUTSIZED
        try:
            customer = bounded_name(record.key.decode()) if record.key else ""
            usage = usage_of(record.value, customer, self._unit, record.timestamp * 1000, witness_us)
            if self.routes.watching or usage.shape not in _MAIN_SHAPES:
                self.routes.saw(usage.shape, customer, record.timestamp)
            return usage
        except Rejected as refusal:
            return refusal
        except UnicodeDecodeError as error:
            return Rejected("malformed", type(error).__name__)

    def _read_all(self, records: Sequence[Record], clock_ms: int, latest_ms: int) -> tuple[list[Usage | Rejected], int]:
        """Return each record as usage or refusal, and the newest record time or end, milliseconds since 1970 UTC."""
        lead_ms, newest_ms = self._lead_ms, clock_ms
        worker_us = 0 if latest_ms == NO_LIMIT_MS else latest_ms * 1000 - FUTURE_US
        usages = []
        for record in records:
            if record.timestamp > clock_ms:
                clock_ms = max(clock_ms, min(record.timestamp, latest_ms))
                if record.timestamp <= clock_ms + lead_ms:
                    newest_ms = max(newest_ms, record.timestamp)
            usage = self._read(record, max(clock_ms * 1000, worker_us))
            usages.append(usage)
            if type(usage) is Usage:  # a repeat may arrive when the clock has reached that end
                told_ms = (usage.told_end_us or usage.end_us) // 1000
                if told_ms > newest_ms:
                    newest_ms = max(newest_ms, min(told_ms, clock_ms + lead_ms))
        return usages, newest_ms

    def _fold(
        self, ledger: LedgerState, records: Sequence[Record], resolve: Resolve, latest_ms: int, rates: Rates | None
    ) -> Changes:
        """Decide about each call, by the tag of its identity and by its decision.

        | identity (tag)             | decision              | outcome                                        |
        |----------------------------|-----------------------|------------------------------------------------|
        | no usage in the record     | -                     | rejected                                       |
        | SETTLED, UNTOLD            | any                   | duplicate; another cost is also kept aside     |
        | COSTLESS                   | not billed            | duplicate                                      |
        | COSTLESS                   | from a cache, no cost | duplicate: counted by an older release         |
        | NEVER, may be forgotten    | any                   | rejected: beyond_horizon                       |
        | NEVER, COSTLESS            | billed, implausible   | rejected: implausible_cost                     |
        | NEVER, COSTLESS            | failed, carried       | counted: the success after it has its cost     |
        | NEVER, COSTLESS            | billed                | added to its window                            |
        | NEVER                      | metered, held already | duplicate                                      |
        | NEVER                      | metered, no room      | rejected: too_many_held                        |
        | NEVER                      | metered               | a window of its own                            |
        | NEVER                      | not billed            | counted                                        |

        A record whose time is days ahead of the clock is rejected, unless it is a duplicate. A call without a cost that a
        rate card prices is billed, and settles its identity. A rebuilt ledger also writes an enriched record for a call
        that it does not bill and that the lost ledger may have billed, see `Position.recounted_to`.
        """
        policy, position, lead_ms, enrich = self._policy, ledger.position, self._lead_ms, self._enricher
        usages, newest_ms = self._read_all(records, position.clock_ms, latest_ms)
        memory = BatchIdentities(ledger, [usage for usage in usages if type(usage) is Usage])
        known, new = iter(memory.known), memory.new
        touched: dict[WindowKey, Window] = {}
        changes = Changes(position)
        decisions, enriched = changes.decisions, changes.enriched
        clock_ms = position.clock_ms
        room = policy.max_held_metered - len(ledger.metered)
        folded_calls, folded_cost, duplicate, rejected = 0, ZERO, Sum(), Sum()
        apart: dict[str, Sum] = {}
        ended_us = oldest_us(policy, clock_ms, position)
        for record, usage in zip(records, usages, strict=True):
            if clock_ms < record.timestamp and clock_ms < latest_ms:
                clock_ms = min(record.timestamp, latest_ms)
                ended_us = oldest_us(policy, clock_ms, position)
            if isinstance(usage, Rejected):
                reject(changes, rejected, record, usage)
                continue
            identity, cost = usage.identity, usage.cost
            stored = next(known)
            tag = new.get(identity, stored)
            if usage.twins or usage.job:
                tag = memory.also(usage, tag)
            decision = decide(usage, policy)
            if (price := None if rates is None else rated(usage, decision, rates)) and decision not in BILLED:
                decision = BILLABLE
            if tag != NEVER and (tag != COSTLESS or decision not in BILLED or (usage.cache_hit and not cost)):
                repeat(changes, duplicate, record, usage, differs_in_cost=differs(tag, cost) and not usage.carried)
                if usage.job is identity:
                    memory.told_again(usage, tag, clock_ms)
                if tag == COSTLESS and cost and record.offset < position.recounted_to and decision in UNBILLED:
                    enriched.append((record.key, enrich(usage, record.offset, decision, None, None)))
                continue
            if usage.end_us < ended_us and tag == NEVER and may_be_forgotten(usage, policy, clock_ms, position):
                reject(changes, rejected, record, _OLD, cost)
                continue
            if record.timestamp > clock_ms + lead_ms:
                reject(changes, rejected, record, _AHEAD, cost)
                continue
            if cost > self._plausible and decision in BILLED and implausible(usage, policy):
                self._refuse(changes, rejected, record, Rejected(IMPLAUSIBLE_COST, f"{cost:f} USD"), usage)
                changes.noticed.doubt(IMPLAUSIBLE_COST, cost)
                continue
            if price is not None and price.usd > policy.max_usd_per_call and implausible(usage, policy, price.usd):
                self._refuse(
                    changes, rejected, record, Rejected(IMPLAUSIBLE_COST, f"billed at {price.usd:f} USD"), usage
                )
                changes.noticed.doubt(IMPLAUSIBLE_COST, cost)
                continue
            mark = mark_of(usage) if usage.carried or decision == FAILED_WITH_COST else b""
            if mark and decision in BILLED:
                known_attempts = memory.attempts(mark)
                if is_carried(usage, decision, known_attempts):
                    decision, price = CARRIED, None
                    attempts = after_carried(usage, known_attempts)
                else:
                    attempts = without_attempts(usage, decision, known_attempts)
                    if usage.carried:
                        cost = usage.cost
                        price = None if rates is None else rated(usage, decision, rates)
                memory.keep_attempts(mark, attempts, clock_ms)
            target: Target | None = None
            window: Window | None = None
            rate: RateKey = None
            if decision in BILLED:
                if decision != BILLABLE:
                    set_apart(apart, decision, cost)
                target = resolve(usage.customer_id, usage.end_us, usage.id_kind)
                if price is not None and rates is not None:
                    rate = rates.key_of(price.card, target, usage.end_us)
                window = window_of(policy, ledger, touched, usage, target, record.offset, rate)
                add_call(window, usage, record.offset)
                if price is not None and rate is not None and window.rated is not None:
                    window.rated = Rated(*rate, window.rated.usd + price.usd)
                folded_calls += 1
                folded_cost += cost
            elif decision != METERED:
                set_apart(apart, decision, cost)
                if decision == UNPRICED:
                    changes.noticed.without_price(usage.model)
            elif identity in ledger.metered:  # the usage was held longer than identities are remembered
                repeat(changes, duplicate, record, usage, differs_in_cost=False)
                new[identity] = tag_of(usage, decision)
                continue
            else:
                code = usage.metered.code if usage.metered is not None else ""
                target = resolve(usage.customer_id, usage.end_us, usage.id_kind, code)
                if target.held and room <= 0:
                    self._refuse(changes, rejected, record, Rejected(TOO_MANY_HELD), usage)
                    continue
                room -= bool(target.held)
                window = add_metered_event(changes, usage, target, record.offset)
                set_apart(apart, decision, cost)
                folded_calls += 1
            made = enrich(usage, record.offset, decision, target, window, price and price.usd, rate)
            enriched.append((record.key, made))
            if usage.kind == UNKNOWN:
                changes.noticed.of_unknown_type(usage.call_type)
            # `tag_of`, inlined for the usual call, because one function call per record is too slow here.
            tag = hash(cost) % FINGERPRINTS + SETTLED if cost else tag_of(usage, decision)
            new[identity] = tag
            if stored == COSTLESS:
                memory.reopen(identity)
            if usage.twins or usage.job:
                memory.keep(usage, tag, clock_ms)
            decisions[decision] = decisions.get(decision, 0) + 1
        changes.windows.update({window.first: window for window in touched.values()})
        changes.position = moved(position, apart, Sum(folded_calls, folded_cost), duplicate, rejected)
        changes.position.next, changes.position.clock_ms = records[-1].offset + 1, clock_ms
        memory.write(changes, records[0].offset, policy.dedupe_retention_us, max(newest_ms, clock_ms) // HOUR_MS)
        return changes

    def _refuse(self, changes: Changes, rejected: Sum, record: Record, refusal: Rejected, usage: Usage) -> None:
        reject(changes, rejected, record, refusal, usage.cost)
        if record.offset < changes.position.recounted_to:
            changes.enriched.append((record.key, self._enricher(usage, record.offset, REJECTED, None, None)))
