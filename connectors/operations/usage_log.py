"""Asks the usage log in Postgres whether a call was counted, and makes sure that its answer is the whole truth."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date

from confluent_kafka import Consumer, TopicPartition

from connectors.kafka.security import librdkafka_config
from connectors.operations.scan import Stretch, scan, stretch_of
from connectors.postgres.pool import Database
from connectors.settings import Settings
from schemas.errors import Unavailable
from schemas.moments import to_datetime
from schemas.topics import TopicNames
from schemas.usage import Usage
from streams.core.alias import alias_of

_KNOWN = """
SELECT asked.number FROM unnest($1::int[], $2::bytea[], $3::date[]) AS asked (number, identity, month)
WHERE EXISTS (SELECT FROM llm_usage_log log WHERE log.identity = asked.identity AND log.month = asked.month)
UNION
SELECT asked.number FROM unnest($1::int[], $4::text[], $5::timestamptz[]) AS asked (number, alias, started_at)
WHERE asked.alias <> '' AND EXISTS (
    SELECT FROM llm_usage_log log WHERE log.alias = asked.alias
    AND log.started_at BETWEEN asked.started_at - interval '2 ms' AND asked.started_at + interval '2 ms')
"""
_FORGOTTEN = "SELECT month FROM forgotten_months WHERE month = ANY($1::date[])"
_PLACED = "SELECT partition, next FROM projector_offsets WHERE topic = $1"
#: A call's start in LiteLLM's database and in its callbacks differs by so much, as in `_KNOWN`.
_APART_US = 2000
_LIMIT_S = 20.0
_ASK_AGAIN_S = 0.25
_WORTH_READING = 10_000


@dataclass(frozen=True, slots=True)
class Checked:
    """The usage log held everything up to a moment.

    Fields:
        at_us: that moment, microseconds since 1970 UTC.
        topic, placed: where the projector stood then, by partition. A crash of Postgres takes rows and offsets back
            together, so an offset that is lower now means rows that are gone.
    """

    at_us: int
    topic: str
    placed: Mapping[int, int]


async def known(database: Database, calls: Sequence[Usage], checked: Checked) -> set[int]:
    """Which of `calls`, by index, are in the log: by their identity, or by alias and start to 2 ms.

    LiteLLM's database has other ids and coarser times than its callbacks (docs/litellm.md), so a call that came by one
    of them is found under the other by its alias. Usage that others measured is none of LiteLLM's and has no alias.

    Raises:
        Unavailable: `log_behind`: the log holds less than when it was `checked`; or Postgres does not answer.
    """
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        placed = dict(await connection.fetch(_PLACED, checked.topic))
        if any(placed.get(number, 0) < at_least for number, at_least in checked.placed.items()):
            raise Unavailable("log_behind", "Postgres has lost its latest rows: the projector writes them again")
        rows = await connection.fetch(
            _KNOWN,
            list(range(len(calls))),
            [call.identity for call in calls],
            [_month_of(call.start_us) for call in calls],
            ["" if call.metered else alias_of(call.call_id, call.request_id) for call in calls],
            [to_datetime(call.start_us) for call in calls],
        )
    return {row[0] for row in rows}


async def forgotten(database: Database, calls: Sequence[Usage]) -> set[int]:
    """Which of `calls`, by index, started in a month that was pruned: that they are not `known` says nothing of them.

    Ask after `known`: a month is written down with the drop of its rows. Raises: Unavailable.
    """
    asked = [{_month_of(call.start_us + apart_us) for apart_us in (-_APART_US, _APART_US)} for call in calls]
    async with database.connection() as connection:
        months = {row[0] for row in await connection.fetch(_FORGOTTEN, sorted(set().union(*asked)))}
    return {number for number, wanted in enumerate(asked) if wanted & months}


async def caught_up(
    settings: Settings,
    database: Database,
    limit_s: float = 60.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Checked:
    """Wait until all that was in the raw topic when this was called is counted and in the log.

    What is not in the log at the moment returned was not counted before it, and what is counted after it the ledgers
    remember for the horizon: it is the `checked_at` of what is sent.

    Raises:
        Unavailable: `log_behind`: the meter or the projector does not get there within `limit_s`.
    """
    topics = TopicNames.with_prefix(settings.topic_prefix)
    group = f"{settings.topic_prefix}{settings.deployment_name}-meter"
    at_us = time.time_ns() // 1000
    raw = await asyncio.to_thread(stretch_of, settings, topics.raw)
    ends = {number: end for number, (start, end) in raw.ranges.items() if end > start}
    deadline = time.monotonic() + limit_s

    async def wait(what: str, behind: Callable[[], Awaitable[int]]) -> None:
        while left := await behind():
            if time.monotonic() > deadline:
                raise Unavailable("log_behind", f"the {what} has {left} records to go: is it running?")
            await sleep(_ASK_AGAIN_S)

    async def to_fold() -> int:
        return await asyncio.to_thread(_uncommitted, settings, group, topics.raw, ends)

    await wait("meter", to_fold)
    enriched = await asyncio.to_thread(stretch_of, settings, topics.enriched)

    placed: dict[int, int] = {}

    async def to_project() -> int:
        placed.update(await _placed(database, topics.enriched))
        return await asyncio.to_thread(_committed_in, settings, _unprojected(enriched, placed))

    await wait("projector", to_project)
    return Checked(at_us, topics.enriched, placed)


def _uncommitted(settings: Settings, group: str, topic: str, ends: dict[int, int]) -> int:
    options = {"group.id": group, "enable.auto.commit": False}
    with closing(Consumer({**librdkafka_config(settings), **options})) as consumer:
        asked = [TopicPartition(topic, number) for number in ends]
        committed = consumer.committed(asked, timeout=_LIMIT_S) if asked else []
        return sum(max(0, ends[one.partition] - max(0, one.offset)) for one in committed)


async def _placed(database: Database, topic: str) -> dict[int, int]:
    async with database.connection() as connection:
        return dict(await connection.fetch(_PLACED, topic))


def _unprojected(whole: Stretch, placed: Mapping[int, int]) -> Stretch:
    ranges = {number: (max(start, placed.get(number, 0)), end) for number, (start, end) in whole.ranges.items()}
    return Stretch(whole.topic, ranges)


def _committed_in(settings: Settings, stretch: Stretch) -> int:
    """Records there are; a stretch that is long is taken for full. Its end may be a transaction's marker, no record."""
    return stretch.offsets if stretch.offsets > _WORTH_READING else sum(1 for _ in scan(settings, stretch))


def _month_of(start_us: int) -> date:
    return to_datetime(start_us).date().replace(day=1)
