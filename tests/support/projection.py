"""The projector's SQL without Kafka: a writer that takes records of a topic, and what it has written."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Self

import msgspec
from aiokafka import TopicPartition

from connectors.postgres.pool import Database
from connectors.postgres.projection import PostgresProjection
from schemas.records import EnrichedUsage, LagoEvent, Manifest, Receipt
from streams.agents.projector import PartitionPosition, Projected
from tests.support.database import rows
from tests.support.history import PREFIX, TOPICS, History, TopicRecord

TABLES = (
    *("llm_usage_log", "usage_parts", "rejected_calls", "projector_offsets"),
    *("customer_records", "organisations", "audit_log", "webhook_delivery_logs"),
)


class Writer:
    """The projection and its position in each partition."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url)
        self.projection = PostgresProjection(self.database, TOPICS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.database.terminate()

    async def take(self, topic: str, partition: int, records: Sequence[TopicRecord]) -> Projected | None:
        """Project records of a partition, from its position on."""
        tp = TopicPartition(topic, partition)
        place = await self.projection.begin(tp, PartitionPosition("id", records[0].offset))
        return await self.projection.project(tp, place.next, records[-1].offset + 1, records)

    async def put(self, topic: str, *values: object, key: bytes = b"acme", **headers: bytes) -> Projected | None:
        """Project these values with one key, as the next records of partition 0."""
        place = await self.projection.begin(TopicPartition(topic, 0), PartitionPosition("id", 0))
        records = [
            TopicRecord(
                place.next + n,
                1_795_176_000_000,
                key,
                value if isinstance(value, bytes) else msgspec.json.encode(value),
                tuple(headers.items()),
            )
            for n, value in enumerate(values)
        ]
        return await self.take(topic, 0, records)


async def snapshot(url: str) -> dict[str, list[str]]:
    """Return the content of all tables, and the queue that operators see."""
    return {
        name: sorted(map(repr, await rows(url, f"SELECT * FROM {name}")))
        for name in (*TABLES[:3], "event_queue", "held_parts", "lago_events")
    }


async def emptied(url: str) -> None:
    """Empty the tables."""
    await rows(url, f"TRUNCATE {', '.join(TABLES)}")


async def in_order(url: str, told: History) -> dict[str, list[str]]:
    """Return the tables after each topic was projected completely, one after the other."""
    async with Writer(url) as writer:
        for (topic, partition), log in told.logs.items():
            await writer.take(topic, partition, log)
    return await snapshot(url)


def usage(number: int = 1, **fields: Any) -> EnrichedUsage:
    """Return a billable call of part 7."""
    base = {
        "identity": f"{number:032x}",
        "offset": number,
        "customer_id": "acme",
        "id_kind": "end_user",
        "decision": "billable",
        "cost_usd": Decimal("0.000145"),
        "start": "2026-11-20T12:00:00.000000Z",
        "end": "2026-11-20T12:00:01.500000Z",
        "part": f"{PREFIX}7",
    }
    return EnrichedUsage(**{**base, **fields})


def event(first: int = 7, **properties: str) -> LagoEvent:
    """Return the event of the part that starts at offset `first`."""
    result = {"unit": "1", "user_id": "acme", "org_id": "org", **properties}
    return LagoEvent(f"{PREFIX}{first}", "sub", "ai_usage", "1795176000.000", "1.45", result)


def manifest(*windows: int, first: int = 7) -> bytes:
    """Return a manifest that names these released windows."""
    return msgspec.json.encode(Manifest(0, first, first + 1, 2, windows))


def receipt(status: str, at: int, **fields: Any) -> Receipt:
    """A receipt about the event of part 7; `at` in seconds."""
    return Receipt(f"{PREFIX}7", status, at * 1_000_000, "sub", "1.45", 2, **fields)


async def queue(url: str) -> list[tuple[Any, ...]]:
    """Return what an operator sees, in order of ids."""
    columns = "transaction_id, external_customer_id, customer_mapping_id, status, retry_count, error_message"
    return await rows(url, f"SELECT {columns} FROM event_queue ORDER BY 1")
