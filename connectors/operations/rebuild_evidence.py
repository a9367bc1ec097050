"""Finds out from the topics which calls a lost ledger had counted, and which of them had left it.

Every transaction of a ledger also wrote an enriched record for each counted call, its events, its receipts and the
group's offset. So a call below that offset that is in `litellm.usage.enriched` was counted. If its part was emitted or
written off, the call has left the ledger; otherwise it was open or held (docs/adr/0043).
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from itertools import pairwise
from sys import intern

import msgspec
from confluent_kafka import Message

from connectors.config.deployment import Deployment
from connectors.kafka.topic_scan import OffsetRange, header_of, number_in_header, offset_range_of, scan
from connectors.operations.damaged_records import DamagedRecords
from connectors.operations.ledger_init import sealed_before
from schemas.bounded_name import bounded_name
from schemas.decoding import Unreadable, decoder
from schemas.errors import Rejected
from schemas.ledger import Job
from schemas.moments import SECOND_US, parse_us
from schemas.money import EXACT, ZERO
from schemas.normalised_call import Usage
from schemas.plurals import numbered
from schemas.ranges import counts, dollars, written
from schemas.reasons import WRITTEN_OFF
from schemas.records import EnrichedUsage, LagoEvent, Manifest, Receipt
from schemas.rounding import quantum
from streams.core.metering.batch_identities import HOUR_MS, strongest, tag_of
from streams.core.metering.decisions import BILLABLE, CARRIED, COST_IS_BILLED, FAILED_WITH_COST, REJECTED
from streams.core.metering.failed_attempts import after_carried, mark_of, own_cost, without_attempts
from streams.core.metering.known_identities import NEVER, SETTLED
from streams.core.metering.lago_event import part_prefix
from streams.core.metering.matching import NOISE
from streams.core.metering.read_usage import usage_of
from streams.runtime.transactions import partition_of
from streams.state.ledger_restart import EmittedTotals
from streams.state.step_writes import MANIFEST, RAW_PARTITION, SEAL_SEQ, order_in

#: How much later than its receipt a call may end, microseconds (streams/core/metering/normalise.py).
_CLOCKS_US = 600 * SECOND_US


class _Counted(msgspec.Struct):
    """The needed members of an enriched record."""

    offset: int
    decision: str
    end: str
    cost_usd: Decimal
    part: str = ""
    note: str = ""


def _check(call: _Counted) -> None:
    counts(call.offset)
    dollars(call.cost_usd)
    written(call.end)


_counted = decoder(_Counted, _check)
_event = decoder(LagoEvent)
_manifest = decoder(Manifest)
_receipt = decoder(Receipt)
_usage = decoder(EnrichedUsage)


@dataclass(slots=True)
class Evidence:
    """The known facts about a lost ledger.

    Fields:
        next: the lowest offset of a call that was open or held, or may not have been counted; without such a call the
            committed offset.
        clock_ms, newest_ms: the highest record time below `next`, and below the committed offset.
        waiting: number of calls that were open or held. They are counted again.
        seen, jobs: identities with their tags, and jobs.
        emitted: numbers and sums of the parts that were emitted.
        forgot_us: a call that ended before this moment may have been counted although the topics do not show it,
            microseconds since 1970 UTC; 0 = no call.
        gaps: sentences about what the topics do not show any more.
        refused: offsets of calls that were open or held and cannot be read any more: the new ledger rejects them.
        withdrawn: keys and values for the enriched topic, which say so.
    """

    next: int
    clock_ms: int = 0
    newest_ms: int = 0
    waiting: int = 0
    seen: dict[bytes, int] = field(default_factory=dict)
    jobs: dict[bytes, Job] = field(default_factory=dict)
    emitted: EmittedTotals = field(default_factory=EmittedTotals)
    forgot_us: int = 0
    gaps: list[str] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    withdrawn: list[tuple[bytes | None, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class _Calls:
    """The counted calls of one partition, by offset.

    Fields:
        settled: calls that have left the ledger, and their decisions.
        noted: what settled calls with a note were billed for: attempts may have been taken from them.
        waiting: calls that were open or held, with their ends, microseconds since 1970 UTC.
        first, first_ms: offset and record time of the oldest enriched record; -1 = there is none.
        strays: the calls in `waiting` that belong to another partition by now.
        attempts: the calls in `waiting` that are failed attempts.
    """

    settled: dict[int, str] = field(default_factory=dict)
    noted: dict[int, Decimal] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)
    strays: set[int] = field(default_factory=set)
    attempts: set[int] = field(default_factory=set)
    first: int = -1
    first_ms: int = 0

    def forget(self, offset: int) -> None:
        """Forget a call that an earlier rebuilt ledger has rejected."""
        self.settled.pop(offset, None)
        self.noted.pop(offset, None)
        self.waiting.pop(offset, None)
        self.attempts.discard(offset)


def evidence_of(
    deployment: Deployment, topic_id: str, partition: int, committed: int, known_to: int, ancestors: Iterable[int]
) -> Evidence:
    """Read the topics. Call this after the owner of the partition is fenced, because only then the topics are final.

    Args:
        topic_id: id of the raw topic.
        committed: the committed offset of the meter's group.
        known_to: the offset up to which it is certain that each call was counted, at most `committed`. An operator may
            have moved the group's offset.
        ancestors: partitions from which the keys of this one came (`meterbridge topics expand`).

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
    """
    kafka, topics = deployment.kafka, deployment.topics
    prefix = part_prefix(deployment.name, topic_id, partition)
    damaged = DamagedRecords()
    gone, oldest_ms = _gone(deployment, partition, prefix, damaged)
    enriched = offset_range_of(kafka, topics.enriched).ranges[partition]
    calls = _read_calls(deployment, partition, enriched, gone, damaged)
    evidence = Evidence(min([known_to, *calls.waiting]), waiting=len(calls.waiting))
    raw_begin = offset_range_of(kafka, topics.raw).ranges[partition][0]
    known_ms = _known_from(deployment, partition, evidence, calls, enriched[0], raw_begin)
    if calls.first >= 0 and oldest_ms > calls.first_ms:
        evidence.gaps.append("events or receipts are gone that are younger than the first enriched call")
        known_ms = max(known_ms, oldest_ms)  # what looks open or held may have been billed by one of these events
    if known_ms:
        evidence.forgot_us = known_ms * 1000 + _CLOCKS_US
        if any(end_us < evidence.forgot_us for end_us in calls.waiting.values()):
            evidence.gaps.append("calls that were open or held ended before that time")
    if calls.strays:
        evidence.gaps.append(
            f"{numbered(len(calls.strays), 'open or held call belongs', 'open or held calls belong')} to other partitions since the topic grew"
        )
    for ancestor in sorted({*ancestors} - {partition}):
        begin_of = offset_range_of(kafka, topics.enriched).ranges[ancestor]
        older = _read_calls(deployment, ancestor, begin_of, None, damaged)
        whole = offset_range_of(kafka, topics.raw).ranges[ancestor]
        _remember(
            deployment, evidence, OffsetRange(topics.raw, {ancestor: (max(whole[0], older.first), whole[1])}), older
        )
    begin = max(raw_begin, calls.first)
    _remember(deployment, evidence, OffsetRange(topics.raw, {partition: (begin, committed)}), calls, evidence.next)
    if evidence.refused:
        evidence.withdrawn = _withdrawn(deployment, partition, enriched, evidence.refused, prefix)
    evidence.emitted = sealed_before(deployment, partition, damaged)
    evidence.gaps += damaged.sentences()
    return evidence


def _known_from(
    deployment: Deployment, partition: int, evidence: Evidence, calls: _Calls, enriched_begin: int, raw_begin: int
) -> int:
    """Return the record time from which on all counted calls are known, milliseconds since 1970 UTC; 0 = from the
    beginning.
    """
    known_ms = 0
    if enriched_begin > 0:
        known_ms = calls.first_ms
        if raw_begin < calls.first or calls.first < 0:
            evidence.gaps.append(
                f"enriched calls below offset {max(calls.first, 0)} are gone: what was held of them is not billed"
            )
    if raw_begin > evidence.next:
        evidence.gaps.append(
            f"raw begins at {raw_begin}, and calls from {evidence.next} on were open, held or not counted"
        )
    if raw_begin > max(calls.first, 0):
        raw = deployment.topics.raw
        end = offset_range_of(deployment.kafka, raw).ranges[partition][1]
        first = next(scan(deployment.kafka, OffsetRange(raw, {partition: (raw_begin, end)})), None)
        known_ms = max(known_ms, 0 if first is None else first.timestamp()[1])
    return known_ms


def _gone(deployment: Deployment, partition: int, prefix: str, damaged: DamagedRecords) -> tuple[set[str], int]:
    """Return the names of all windows that left the ledger, and the record time from which on the topics are complete,
    milliseconds. Records that cannot be read are counted in `damaged`.

    Parts are numbered without a gap. If no event has expired, a missing number shows that a partition of the topic is lost.
    """
    kafka, topics = deployment.kafka, deployment.topics
    gone: set[str] = set()
    numbered_ms: dict[int, int] = {0: 0}
    oldest_ms = 0
    for topic in (topics.events, topics.receipts):
        whole = offset_range_of(kafka, topic)
        cut = {number for number, (begin, _) in whole.ranges.items() if begin}
        for message in scan(kafka, whole):
            if (number := message.partition() or 0) in cut:
                cut.discard(number)
                oldest_ms = max(oldest_ms, message.timestamp()[1])
            if topic == topics.receipts:
                receipt = damaged.read(_receipt, message)
                if receipt is not None and receipt.status == WRITTEN_OFF:
                    gone.add(receipt.transaction_id)
            elif header_of(message, RAW_PARTITION) == str(partition):
                if (event := damaged.read(_event, message)) is not None:
                    gone.add(event.transaction_id)
                manifest = damaged.read(_manifest, message, header_of(message, MANIFEST).encode())
                if manifest is None:
                    continue
                gone.update(f"{prefix}{first}" for first in manifest.windows)
                if event is not None:
                    numbered_ms[number_in_header(message, SEAL_SEQ) or 0] = message.timestamp()[1]
        if topic == topics.events and not any(begin for begin, _ in whole.ranges.values()):
            after_gaps = (after for before, after in pairwise(sorted(numbered_ms)) if after - before > 1)
            oldest_ms = max((numbered_ms[number] for number in after_gaps), default=0)
    return gone, oldest_ms


def _read_calls(
    deployment: Deployment, partition: int, whole: tuple[int, int], gone: set[str] | None, damaged: DamagedRecords
) -> _Calls:
    """Read the counted calls of a partition; `gone`: None = all of them have left this ledger. Records that cannot be
    read are counted in `damaged`.
    """
    calls, topic = _Calls(), deployment.topics.enriched
    for message in scan(deployment.kafka, OffsetRange(topic, {partition: whole})):
        call = damaged.read(_counted, message)
        if call is None:
            continue
        if calls.first < 0:
            calls.first, calls.first_ms = call.offset, message.timestamp()[1]
        # The last record of a call is decisive, because an earlier rebuild may have counted the call again.
        if call.decision == REJECTED:
            calls.forget(call.offset)
        elif gone is None or not call.part or call.part in gone:
            calls.settled[call.offset] = intern(call.decision)
            calls.waiting.pop(call.offset, None)
            calls.attempts.discard(call.offset)
            if call.note:
                calls.noted[call.offset] = call.cost_usd
        else:
            calls.waiting[call.offset] = parse_us(call.end)
            calls.settled.pop(call.offset, None)
            if call.decision == FAILED_WITH_COST:
                calls.attempts.add(call.offset)
        key = message.key()
        if key and partition_of(key, deployment.partitions) != partition:
            calls.strays.add(call.offset)
    calls.strays &= calls.waiting.keys()
    return calls


def _withdrawn(
    deployment: Deployment, partition: int, whole: tuple[int, int], refused: set[int], prefix: str
) -> list[tuple[bytes | None, bytes]]:
    """Return the last enriched records of these calls, as rejected, in order of their offsets."""
    last: dict[int, tuple[bytes | None, bytes]] = {}
    for message in scan(deployment.kafka, OffsetRange(deployment.topics.enriched, {partition: whole})):
        with suppress(Unreadable):
            usage = _usage(message.value())
            if usage.offset in refused:
                usage = msgspec.structs.replace(usage, decision=REJECTED, part="", held="", ledger=prefix)
                usage.org_id = usage.external_subscription_id = usage.rate = ""
                usage.billed_usd = usage.price_usd = None
                last[usage.offset] = message.key(), msgspec.json.encode(usage)
    return [last[offset] for offset in sorted(last)]


def _remember(
    deployment: Deployment, evidence: Evidence, raw: OffsetRange, calls: _Calls, again_from: int | None = None
) -> None:
    """Collect the identities of the settled calls, and the clock.

    `again_from`: the offset from which the ledger counts again what is not remembered. Attempts that a success carries
    are among it, if their success is; None = nothing is counted again.
    """
    unit = quantum(deployment.policy.cost_decimals)
    ((partition, _),) = raw.ranges.items()
    again: dict[bytes, Decimal] = {}
    carriers: set[bytes] = set()
    for message, offset, made_ms in _calls_of(deployment, raw):
        evidence.newest_ms = max(evidence.newest_ms, made_ms)
        if offset < evidence.next:
            evidence.clock_ms = max(evidence.clock_ms, made_ms)
        decision = calls.settled.get(offset, "")
        if not decision and offset not in calls.waiting:
            continue
        try:
            with localcontext(EXACT):
                customer = bounded_name((message.key() or b"").decode(errors="replace"))
                usage = usage_of(message.value(), customer, unit, made_ms * 1000)
                mark = mark_of(usage)
                if not decision:
                    if usage.carried:
                        carriers.add(mark)
                    if offset in calls.attempts:
                        again[mark] = min(own_cost(usage), again.get(mark, usage.cost))
                    continue
                if decision == CARRIED and mark in carriers and again_from is not None and offset >= again_from:
                    continue
                tag, hour = tag_of(usage, decision), evidence.newest_ms // HOUR_MS
                if decision in COST_IS_BILLED:
                    _remember_attempts(evidence, usage, decision, calls.noted.get(offset), hour)
                    if mark in again:
                        _carry_nothing(evidence, mark, again[mark])
        except Rejected:  # it was readable by the rules of an earlier release
            if not decision:
                evidence.refused.add(offset)
            if decision or offset in calls.attempts:
                evidence.gaps.append(f"the call at offset {offset} of partition {partition} cannot be read any more")
            continue
        job = usage.job
        for twin in usage.twins.kept if usage.twins is not None else ():
            evidence.seen[twin] = strongest((tag, evidence.seen.get(twin, NEVER)))
        if not job or job is not usage.identity:
            evidence.seen[usage.identity] = tag
        if job and (job is usage.identity or tag >= SETTLED):
            evidence.jobs[job] = Job(hour, tag)
            evidence.seen[job] = tag


def _remember_attempts(evidence: Evidence, usage: Usage, decision: str, billed: Decimal | None, hour: int) -> None:
    """Remember the failed attempts of a call, as the fold has.

    Args:
        usage: the call; it is changed.
        decision: the fold's.
        billed: what the call was billed for, None = its whole cost.
    """
    if not (mark := mark_of(usage)) or not (usage.carried or decision != BILLABLE):
        return
    job = evidence.jobs.get(mark)
    known = None if job is None else job.attempts
    attempts = after_carried(usage, known) if decision == CARRIED else without_attempts(usage, decision, known)
    if decision != CARRIED and billed is not None and usage.cost > billed:  # attempts were taken that are counted again
        attempts = msgspec.structs.replace(attempts, carried=max(ZERO, attempts.carried - (usage.cost - billed)))
    evidence.jobs[mark] = Job(hour, SETTLED, attempts)


def _carry_nothing(evidence: Evidence, mark: bytes, cheapest: Decimal) -> None:
    """Forget what the successes of a call carry. An earlier attempt of it is counted again. It was billed beside the
    success, and must not be taken for an attempt that the success carries. One that costs more is not taken for it.

    `cheapest`: the smallest own cost of such an attempt.
    """
    job = evidence.jobs.get(mark)
    if job is not None and job.attempts is not None and cheapest <= job.attempts.carried + NOISE:
        job = msgspec.structs.replace(job, attempts=msgspec.structs.replace(job.attempts, carried=ZERO))
        evidence.jobs[mark] = job


def _calls_of(deployment: Deployment, raw: OffsetRange) -> Iterator[tuple[Message, int, int]]:
    for message in scan(deployment.kafka, raw):
        if order_in(message.headers(), message.value()) is None:
            yield message, message.offset() or 0, message.timestamp()[1]
