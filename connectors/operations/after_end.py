"""Usage that was posted to a subscription with a moment after its end: Lago took it, and no invoice will count it.

An end is learnt by a webhook or a poll, so what was posted in between went to a subscription that was over. It is billed
again on the org's next subscription, by a new event whose id is made of the old one's; in the same transaction the
old one's receipt fails, `unbillable_ended`. Whoever does so again posts the same event, which Lago knows by then.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from connectors.kafka.security import aiokafka_config
from connectors.lago.client import LagoClient
from connectors.lago.shapes import Subscription
from connectors.operations.scan import scan, stretch_of
from connectors.postgres.pool import Database
from connectors.settings import Settings
from schemas.customers import OrgRecord
from schemas.errors import Unavailable
from schemas.moments import HOUR_US, SECOND_US, lago_timestamp, parse_us, to_datetime, to_iso, to_us
from schemas.money import EXACT, ZERO, add
from schemas.records import LagoEvent, Manifest, Receipt
from schemas.topics import TopicNames
from streams.core.billing_periods import billed
from streams.core.choice import chosen
from streams.core.restamp import USAGE_END
from streams.core.tally import FAILED, PENDING, UNBILLABLE
from streams.transactions import TransactionalWriter, Write
from streams.writes import MANIFEST, receipt_write

#: Why the receipt of what was posted after an end fails.
UNBILLABLE_ENDED: Final = UNBILLABLE + "ended"
#: The property of the event that is posted in another's stead: that one's id.
INSTEAD_OF: Final = "instead_of"
_BATCH: Final = 500
#: Ends that are looked at: of what is older every invoice has been seen by somebody.
_ENDED_US: Final = 40 * 24 * HOUR_US

_ORGS = """
SELECT DISTINCT org_id FROM lago_events WHERE org_id <> '' AND status = 'completed' AND processed_at >= $1
"""
_AFTER = """
SELECT transaction_id, event::text, calls, raw_partition, first_offset, last_offset, windows, billed_at
FROM lago_events
WHERE status = 'completed' AND org_id = $1 AND external_subscription_id = $2 AND billed_at >= $3
ORDER BY transaction_id
"""
_PLACES = "SELECT partition, next FROM projector_offsets WHERE topic = $1"


@dataclass(frozen=True, slots=True)
class Lost:
    """An event that no invoice will count; `instead` is the one that is posted in its stead, None = nowhere yet.

    Fields:
        ended_us: when its subscription ended, to the second, microseconds since 1970 UTC.
    """

    event: LagoEvent
    org_id: str
    subscription: str
    ended_us: int
    manifest: Manifest
    instead: LagoEvent | None = None

    @property
    def cents(self) -> Decimal:
        """What it bills."""
        return Decimal(self.event.precise_total_amount_cents)


async def posted_after_ends(database: Database, lago: LagoClient, now_us: int) -> list[Lost]:
    """What was delivered with a moment after its subscription's end, by org.

    A moment that a later subscription of the same external id covers is billed, and not among them.

    Raises:
        LagoIntegrationError, Unavailable: Lago or Postgres does not answer.
    """
    async with database.connection() as connection:
        orgs = await connection.fetch(_ORGS, to_datetime(now_us - _ENDED_US))
    found: list[Lost] = []
    for (org_id,) in orgs:
        listed = [
            one for one in await lago.subscriptions(org_id, ("active", "terminated")) if one.started_at is not None
        ]
        for name in dict.fromkeys(one.external_id for one in listed):
            lives = [_life(one) for one in listed if one.external_id == name]
            first_end = min((ended for _, ended in lives if ended is not None), default=None)
            if first_end is None or first_end < now_us - _ENDED_US:
                continue
            async with database.connection() as connection:
                rows = await connection.fetch(_AFTER, org_id, name, to_datetime(first_end))
            found += [_lost(row, org_id, name, lives) for row in rows if not _covered(lives, to_us(row["billed_at"]))]
    return found


def redirected(lost: Sequence[Lost], orgs: Mapping[str, OrgRecord], now_us: int, code: str) -> list[Lost]:
    """Each with the event that is posted in its stead, where its org has a subscription that bills it now."""
    return [replace(one, instead=_instead(one, orgs.get(one.org_id), now_us, code)) for one in lost]


def _instead(lost: Lost, org: OrgRecord | None, now_us: int, code: str) -> LagoEvent | None:
    event = lost.event
    at_us, owed = parse_us(event.timestamp), event.code == code
    choice = chosen(org, at_us, event.code, now_us, owed=owed)
    if org is None or choice.held:
        return None
    found = billed(org.periods, choice.subscription, at_us, now_us, event.code, owed=owed)
    if found.held:
        return None
    properties = {USAGE_END: to_iso(at_us), **event.properties, INSTEAD_OF: event.transaction_id}
    return msgspec.structs.replace(
        event,
        transaction_id=f"{event.transaction_id}-again",
        external_subscription_id=choice.subscription,
        timestamp=lago_timestamp(found.at_us),
        properties=properties,
    )


def dollars_of(lost: Iterable[Lost]) -> Decimal:
    """What they bill together."""
    cents = ZERO
    for one in lost:
        cents = add(cents, one.cents)
    return EXACT.divide(cents, Decimal(100))


class Rebilling:
    """Posts what was lost, in transactions; a second one at the same time fences the first."""

    def __init__(self, settings: Settings) -> None:
        self._topics = TopicNames.with_prefix(settings.topic_prefix)
        name = f"{settings.topic_prefix}{settings.deployment_name}-rebill"
        self._writer = TransactionalWriter(aiokafka_config(settings), name)

    async def bill(self, lost: Iterable[Lost]) -> int:
        """Post those that have somewhere to go; how many.

        Raises:
            Unavailable: Kafka went away; `another_desk`. What was done so far stays done, and may be repeated.
        """
        able = [one for one in lost if one.instead is not None]
        try:
            await self._writer.start()
            for start in range(0, len(able), _BATCH):
                writes = [write for one in able[start : start + _BATCH] for write in self._writes(one)]
                await self._writer.commit(writes, TopicPartition(self._topics.events, 0), None, "")
        except ProducerFenced as error:
            raise Unavailable("another_desk", "somebody else has begun to bill again") from error
        except KafkaError as error:
            raise Unavailable("kafka_unavailable", type(error).__name__) from error
        finally:
            await self._writer.stop()
        return len(able)

    def _writes(self, lost: Lost) -> list[Write]:
        again, now_us = lost.instead, time.time_ns() // 1000
        if again is None:
            return []
        key, headers = again.external_subscription_id.encode(), [(MANIFEST, msgspec.json.encode(lost.manifest))]
        failed = Receipt(lost.event.transaction_id, FAILED, now_us, lost.subscription, reason=UNBILLABLE_ENDED)
        cents, calls = again.precise_total_amount_cents, lost.manifest.count
        begun = Receipt(again.transaction_id, PENDING, now_us, again.external_subscription_id, cents, calls)
        return [
            Write(self._topics.events, -1, key, msgspec.json.encode(again), headers),
            receipt_write(self._topics, begun),
            receipt_write(self._topics, failed),
        ]


async def receipts_are_read(settings: Settings, database: Database) -> None:
    """Return where the tables hold every receipt there is. Raises: Unavailable `log_behind`."""
    topic = TopicNames.with_prefix(settings.topic_prefix).receipts
    stretch = await asyncio.to_thread(stretch_of, settings, topic)
    async with database.connection() as connection:
        places = dict(await connection.fetch(_PLACES, topic))
    rest = {number: (max(start, places.get(number, 0)), end) for number, (start, end) in stretch.ranges.items()}
    left = replace(stretch, ranges={number: (start, end) for number, (start, end) in rest.items() if start < end})
    behind = await asyncio.to_thread(lambda: sum(1 for _ in scan(settings, left)))
    if behind:
        raise Unavailable("log_behind", f"the projector has {behind} receipts to go: is it running?")


def _life(found: Subscription) -> tuple[int, int | None]:
    """From its start to the second after its end, which Lago tells to the second."""
    ended = found.terminated_at
    return parse_us(str(found.started_at)), None if ended is None else parse_us(ended) + SECOND_US


def _covered(lives: Sequence[tuple[int, int | None]], at_us: int) -> bool:
    return any(started <= at_us and (ended is None or at_us < ended) for started, ended in lives)


def _lost(row: Mapping[str, Any], org_id: str, name: str, lives: Sequence[tuple[int, int | None]]) -> Lost:
    event = msgspec.json.decode(row["event"], type=LagoEvent)
    posted = msgspec.structs.replace(event, timestamp=lago_timestamp(to_us(row["billed_at"])))
    ended_us = max(ended for _, ended in lives if ended is not None and ended <= to_us(row["billed_at"]))
    place = row["raw_partition"], row["first_offset"], row["last_offset"], row["calls"], tuple(row["windows"] or ())
    return Lost(posted, org_id, name, ended_us, Manifest(*place))
