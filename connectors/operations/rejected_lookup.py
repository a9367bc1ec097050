"""Finds the open rejected calls with an id. Postgres knows which ones are open and their ids, and Kafka has what they contain.

The topic has all rejected calls of its retention. So only the open ones with the id are read, if the rows are complete.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final

from connectors.config.deployment import Deployment
from connectors.kafka.admin import topic_ids
from connectors.kafka.topic_scan import OffsetRange, offset_range_of, scan_stretches
from connectors.operations.dead_letters import CALLS, DeadLetter, dead_letter_of, rejected_with_id
from connectors.operations.usage_log import records_in
from connectors.postgres.pool import Database
from schemas.bounded_name import bounded_name

#: Records that are at most so many offsets apart are read together: reading so many takes about as long as one more request.
_APART: Final = 5_000
_STANDS: Final = "SELECT partition, next FROM projector_offsets WHERE topic = $1 AND topic_id = $2"
#: Rows of earlier records may have been pruned.
_FIRST: Final = 'SELECT partition, min("offset") FROM rejected_calls WHERE "offset" >= 0 GROUP BY partition'
#: Rows that a projector of an earlier release wrote have no ids.
_OPEN: Final = """
SELECT partition, "offset" FROM open_rejected_calls WHERE call_ids IS NULL OR $1 = ANY(call_ids) ORDER BY 1, 2
"""
#: A record without a row: the rows do not show whether it is open.
_UNPROJECTED: Final = 'SELECT partition, "offset" FROM unprojected_records WHERE topic = $1'


async def open_with_id(deployment: Deployment, database: Database, call_id: str) -> list[DeadLetter]:
    """Return the open dead letters of calls with this request id or call id. If the rows are incomplete, for example because
    the projector is behind, all rejected calls are read.

    Raises: see `scan`; Unavailable: Postgres does not answer.
    """
    name = bounded_name(call_id)
    places = await _open_places(deployment, database, name)
    if places is None:
        return await asyncio.to_thread(rejected_with_id, deployment, call_id)
    return await asyncio.to_thread(lambda: [one for one in _letters(deployment, places) if name in one.call_ids])


async def _open_places(deployment: Deployment, database: Database, name: str) -> dict[int, list[int]] | None:
    """Return the offsets of the open rejected calls that may have this id, by partition; None = the rows are incomplete."""
    kafka, topic = deployment.kafka, deployment.topics.rejected
    whole = await asyncio.to_thread(offset_range_of, kafka, topic)
    topic_id = (await asyncio.to_thread(topic_ids, kafka, [topic]))[topic]
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read"):
        stands: dict[int, int] = dict(await connection.fetch(_STANDS, topic, topic_id))
        first: dict[int, int] = dict(await connection.fetch(_FIRST))
        opened = await connection.fetch(_OPEN, name.replace("\0", ""))
        unprojected = await connection.fetch(_UNPROJECTED, topic)
    if any(offset >= whole.ranges[number][0] for number, offset in unprojected if number in whole.ranges):
        return None
    places: dict[int, list[int]] = {}
    for number, (begin, end) in whole.ranges.items():
        following = stands.get(number, 0)
        for unknown in ((begin, first.get(number, following)), (max(begin, following), end)):
            if await asyncio.to_thread(records_in, kafka, OffsetRange(topic, {number: unknown})):
                return None
        places[number] = [offset for partition, offset in opened if partition == number and begin <= offset < end]
    return places


def _letters(deployment: Deployment, places: dict[int, list[int]]) -> Iterator[DeadLetter]:
    topic = deployment.topics.rejected
    wanted = {(number, offset) for number, offsets in places.items() for offset in offsets}
    if not wanted:
        return
    stretches = {number: _together(offsets) for number, offsets in places.items()}
    for message in scan_stretches(deployment.kafka, topic, stretches):
        if (message.partition(), message.offset()) in wanted:
            yield dead_letter_of(CALLS, message, deployment.customer_id_fields)


def _together(offsets: Iterable[int]) -> list[tuple[int, int]]:
    """Return the ranges to read for offsets in ascending order."""
    ranges: list[tuple[int, int]] = []
    for offset in offsets:
        if ranges and offset - ranges[-1][1] <= _APART:
            ranges[-1] = (ranges[-1][0], offset + 1)
        else:
            ranges.append((offset, offset + 1))
    return ranges
