"""Asks the usage log in Postgres whether a call was counted and billed, after a check that the log is complete."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, date, datetime

from confluent_kafka import Consumer, TopicPartition

from connectors.config.deployment import Deployment
from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.topic_scan import OffsetRange, offset_range_of, scan, translated_errors
from connectors.operations.unread import committed_of
from connectors.postgres.pool import Database
from schemas.errors import Unavailable
from schemas.moments import to_datetime, to_us
from schemas.normalised_call import Usage
from schemas.plurals import numbered
from schemas.policy import MeterPolicy
from streams.core.metering.matching import (
    APART_US,
    MISSING,
    PRICED,
    UNCLEAR,
    CopyVerdict,
    LoggedCall,
    LoggedDetails,
    has_start,
    nameless,
    of_a_job,
    verdict,
)
from streams.core.metering.normalise import FUTURE_US
from streams.core.metering.spend_log_ids import alias_of, base_key
from streams.runtime import clock

#: Reasons not to send a call that was not found: the rows of its month were pruned; the log is incomplete at its time;
#: it has too few ids to be found.
FORGOTTEN, INCOMPLETE, NAMELESS = ("usage_pruned", "log_incomplete", "no_call_id")

_COLUMNS = """
log.identity, log.decision, log.status, log.cost_usd, log.part <> '' AS billed, log.customer_id, log.id_kind, log.model,
log.call_id, log.request_id, log.started_at,
log.provider, log.call_type, log.tokens_input, log.tokens_output, log.total_tokens, log.cached_tokens, log.reasoning_tokens,
log.ended_at, log.user_id, log.team_id, log.organization_id, log.key_hash, log.key_alias, log.power_level,
log.cache_write_tokens, log.images, log.seconds, COALESCE(log.byok, false) AS byok
"""
_OF_ROW = len(LoggedCall._fields) - 1
_STARTED, _ENDED = LoggedCall._fields.index("start_us"), LoggedDetails._fields.index("end_us")
#: Finds rows that may be the same call; streams/core/metering/matching.py decides. It searches by identity, by alias
#: and start, by request id, and for calls from LiteLLM's `lago` callback by customer, cost and end. Copies of a job, or
#: of usage that is identified without its time, may have starts in different months.
_CANDIDATES = f"""
SELECT asked.number, {_COLUMNS}
FROM unnest($1::int[], $2::bytea[], $3::date[]) AS asked (number, identity, month)
JOIN llm_usage_log log ON log.identity = asked.identity AND log.month = asked.month
UNION
SELECT asked.number, {_COLUMNS}
FROM unnest($12::int[], $13::bytea[]) AS asked (number, identity)
JOIN llm_usage_log log ON log.identity = asked.identity
UNION
SELECT asked.number, {_COLUMNS}
FROM unnest($1::int[], $4::text[], $5::timestamptz[], $9::timestamptz[]) AS asked (number, alias, started_at, ended_at)
JOIN llm_usage_log log ON log.alias = asked.alias
    AND log.started_at BETWEEN asked.started_at - interval '2 ms' AND asked.ended_at + interval '15 min'
WHERE asked.alias <> '' AND (log.call_id = '' OR log.started_at <= asked.started_at + interval '2 ms')
UNION
SELECT asked.number, {_COLUMNS}
FROM unnest($1::int[], $5::timestamptz[], $6::text[], $7::text[], $8::bool[], $9::timestamptz[])
    AS asked (number, started_at, base, call_id, job, ended_at)
JOIN llm_usage_log log
    ON md5(
        regexp_replace(regexp_replace(log.request_id, '_cache_hit[0-9.]*$', ''), '(_batch_cost|_background_cost|_video_cost)$', '')
    ) = asked.base
    AND log.decision <> 'metered'
WHERE asked.base <> '' AND (
    asked.job OR asked.call_id = '' OR log.call_id = asked.call_id OR log.request_id ~ '(_batch_cost|_background_cost|_video_cost)$'
    OR (log.call_id = ''
        AND log.started_at BETWEEN asked.started_at - interval '2 ms' AND asked.ended_at + interval '15 min')
)
UNION
SELECT asked.number, {_COLUMNS}
FROM unnest($1::int[], $9::timestamptz[], $10::text[], $11::numeric[]) AS asked (number, ended_at, customer_id, cost_usd)
JOIN llm_usage_log log ON log.customer_id = asked.customer_id AND log.id_kind = 'subscription'
    AND log.ended_at BETWEEN asked.ended_at - interval '2 s' AND asked.ended_at + interval '15 min'
    AND abs(log.cost_usd - asked.cost_usd) <= 1e-9
WHERE asked.cost_usd > 0
"""  # noqa: S608  # our own words
_FORGOTTEN = "SELECT month FROM forgotten_months WHERE month = ANY($1::date[])"
_PLACED = "SELECT partition, next FROM projector_offsets WHERE topic = $1"
_COMPLETE = "SELECT partition, since FROM log_completeness"
_ASK_AGAIN_S = 0.25
_WORTH_READING = 10_000
#: The last offset of a partition whose records expired may be a transaction marker.
_MARKER = 1
_ALWAYS, _NEVER = 0, 1 << 62


@dataclass(frozen=True, slots=True)
class LogCheck:
    """A successful check: the usage log holds all calls up to a moment.

    Fields:
        at_us: the moment, microseconds since 1970 UTC.
        topic, placed: the projector's next offsets in the topic at that moment, by partition. A crash of Postgres loses
            rows and offsets together, so a lower offset later means that rows are lost.
        complete_us: the log has all calls that were counted at or after this moment, microseconds since 1970 UTC; 0 =
            it has all calls.
    """

    at_us: int
    topic: str
    placed: Mapping[int, int]
    complete_us: int = _ALWAYS


@dataclass(frozen=True, slots=True)
class LogJudgement:
    """The log's information about one call; `refused`: why it must not be sent although it was not found, otherwise
    `""`.
    """

    verdict: CopyVerdict
    refused: str = ""

    @property
    def sendable(self) -> bool:
        """Whether the log is complete, and the call was not counted or was counted without the price that it has now."""
        return not self.refused and self.verdict.word in (MISSING, PRICED)


async def log_judgements(
    database: Database, calls: Sequence[Usage], checked: LogCheck, policy: MeterPolicy
) -> list[LogJudgement]:
    """Look up each of `calls`; return the results in the same order.

    Raises:
        Unavailable: `projection_behind`: the log has lost rows since it was `checked`; or Postgres does not answer.
    """
    candidates = await _candidates(database, calls, checked)
    verdicts = [verdict(call, candidates.get(number, ()), policy) for number, call in enumerate(calls)]
    # The pruned months are read after the look-up, because a month enters the table in the transaction that drops its
    # rows.
    months = await _forgotten_months(database, calls)
    return [LogJudgement(one, _refusal(call, one, months, checked)) for call, one in zip(calls, verdicts, strict=True)]


def _refusal(call: Usage, verdict: CopyVerdict, months: set[date], checked: LogCheck) -> str:
    if verdict.word == UNCLEAR or (verdict.word == MISSING and nameless(call)):
        return NAMELESS
    if verdict.word not in (MISSING, PRICED):
        return ""
    if _months_of(call) & months:
        return FORGOTTEN
    # A call is counted at its end or later. Our clock may be `FUTURE_US` behind the clock of its sender.
    if checked.complete_us and call.end_us < checked.complete_us + FUTURE_US:
        return INCOMPLETE
    return ""


async def _candidates(database: Database, calls: Sequence[Usage], checked: LogCheck) -> dict[int, list[LoggedCall]]:
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        places = dict(await connection.fetch(_PLACED, checked.topic))
        if any(places.get(number, 0) < at_least for number, at_least in checked.placed.items()):
            raise Unavailable("projection_behind", "Postgres has lost its latest rows: the projector writes them again")
        rows = await connection.fetch(
            _CANDIDATES,
            list(range(len(calls))),
            [call.identity for call in calls],
            [_month_of(call.start_us) for call in calls],
            ["" if call.metered else alias_of(call.call_id, call.request_id) for call in calls],
            [to_datetime(call.start_us) for call in calls],
            ["" if call.metered else base_key(call.request_id) for call in calls],
            [call.call_id for call in calls],
            [bool(call.job) or of_a_job(call) for call in calls],
            [to_datetime(call.end_us) for call in calls],
            [call.customer_id for call in calls],
            [call.cost for call in calls],
            [number for number, call in enumerate(calls) if call.job or not has_start(call)],
            [call.job or call.identity for call in calls if call.job or not has_start(call)],
        )
    candidates: dict[int, list[LoggedCall]] = {}
    for row in rows:
        number, *columns = row
        own, details = columns[:_OF_ROW], columns[_OF_ROW:]
        own[_STARTED], details[_ENDED] = to_us(own[_STARTED]), to_us(details[_ENDED])
        candidates.setdefault(number, []).append(LoggedCall._make([*own, LoggedDetails._make(details)]))
    return candidates


async def _forgotten_months(database: Database, calls: Sequence[Usage]) -> set[date]:
    async with database.connection() as connection:
        months = sorted(set().union(*map(_months_of, calls)))
        return {row[0] for row in await connection.fetch(_FORGOTTEN, months)}


async def caught_up(
    deployment: Deployment,
    database: Database,
    limit_s: float = 60.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    *,
    trusted_us: int | None = None,
) -> LogCheck:
    """Wait until each record that the raw topic has now is counted and in the log.

    After that, a call that is not in the log was not counted before `LogCheck.at_us`. A call that is counted later is
    known to the ledgers for the dedupe retention. So `at_us` becomes the `checked_at` of the calls that are sent.

    Args:
        limit_s: time limit, seconds.
        trusted_us: the operator confirms that the log is complete from this moment on, microseconds since 1970 UTC.
            This overrides the information in the log. None = no confirmation.

    Raises:
        Unavailable: `projection_behind`: the meter or the projector needs longer than `limit_s`, or calls expired in
            the topic before they were projected.
    """
    kafka, topics, group = deployment.kafka, deployment.topics, deployment.kafka_id("meter")
    at_us = clock.now_us()
    raw = await asyncio.to_thread(offset_range_of, kafka, topics.raw)
    ends = {number: end for number, (start, end) in raw.ranges.items() if end > start}
    deadline = time.monotonic() + limit_s

    async def wait(what: str, behind: Callable[[], Awaitable[int]]) -> None:
        while left := await behind():
            if time.monotonic() > deadline:
                raise Unavailable(
                    "projection_behind", f"the {what} has {numbered(left, 'record')} to go: is it running?"
                )
            await sleep(_ASK_AGAIN_S)

    async def to_fold() -> int:
        return await asyncio.to_thread(_uncommitted, kafka, group, topics.raw, ends)

    await wait("meter", to_fold)
    enriched = await asyncio.to_thread(offset_range_of, kafka, topics.enriched)

    places: dict[int, int] = {}

    async def to_project() -> int:
        places.update(await placed(database, topics.enriched))
        return await asyncio.to_thread(records_in, kafka, unprojected(enriched, places))

    await wait("projector", to_project)
    lost = [number for number, (start, _) in enriched.ranges.items() if places.get(number, start) + _MARKER < start]
    if lost and trusted_us is None:
        raise Unavailable(
            "projection_behind", f"calls of partition {lost[0]} left the topic before they were projected"
        )
    complete_us = await _complete_us(database, enriched) if trusted_us is None else trusted_us
    return LogCheck(at_us, topics.enriched, places, complete_us)


async def _complete_us(database: Database, enriched: OffsetRange) -> int:
    """Return the moment from which the log is complete for all partitions. One partition is not enough, because a call
    may have been counted under another customer's key.
    """
    async with database.connection() as connection:
        since = dict(await connection.fetch(_COMPLETE))
    moments = [_ALWAYS]
    for number, (start, _) in enriched.ranges.items():
        if number in since:
            moments.append(_moment(since[number]))
        elif start:
            moments.append(_NEVER)  # records have expired, and the projector has not started on this partition
    return max(moments)


def _moment(since: datetime) -> int:
    """Convert a timestamp. asyncpg returns -infinity and infinity as the smallest and the largest datetime."""
    if since.year <= 1:
        return _ALWAYS
    return _NEVER if since.year >= MAXYEAR else to_us(since.astimezone(UTC))


def _uncommitted(kafka: KafkaConnection, group: str, topic: str, ends: dict[int, int]) -> int:
    options = {"group.id": group, "enable.auto.commit": False}
    with translated_errors(topic), closing(Consumer({**librdkafka_config(kafka), **options})) as consumer:
        committed = committed_of(consumer, [TopicPartition(topic, number) for number in ends]) if ends else []
        return sum(max(0, ends[position.partition] - max(0, position.offset)) for position in committed)


async def placed(database: Database, topic: str) -> dict[int, int]:
    """Return the offset of the next record that the projector will read, by partition of a topic."""
    async with database.connection() as connection:
        return dict(await connection.fetch(_PLACED, topic))


def unprojected(whole: OffsetRange, places: Mapping[int, int]) -> OffsetRange:
    """Return the part of `whole` that the projector has not read; `places`: see `placed`."""
    ranges = {number: (max(start, places.get(number, 0)), end) for number, (start, end) in whole.ranges.items()}
    return OffsetRange(whole.topic, ranges)


def records_in(kafka: KafkaConnection, stretch: OffsetRange) -> int:
    """Return the number of committed records; for a long range, the number of its offsets.

    A short range is read, because some of its offsets may be transaction markers."""
    return stretch.offsets if stretch.offsets > _WORTH_READING else sum(1 for _ in scan(kafka, stretch))


def _months_of(call: Usage) -> set[date]:
    """Return the month of the call's start, and the neighbouring month if the rounded start may lie in it."""
    return {_month_of(call.start_us + apart_us) for apart_us in (-APART_US, APART_US)}


def _month_of(start_us: int) -> date:
    return to_datetime(start_us).date().replace(day=1)
