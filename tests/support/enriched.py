"""Enriched calls as the meter writes them, with numbers. They are written to the topic without a meter."""

from decimal import Decimal
from typing import Any

import msgspec

from schemas.records import EnrichedUsage
from tests.support.eventually import PATIENCE
from tests.support.stage import Stage


def usage(number: int, **fields: Any) -> EnrichedUsage:
    """Call `number`; every tenth is held, in one of five parts."""
    start = f"2026-11-20T12:{number // 60 % 60:02}:{number % 60:02}.000000Z"
    held = {"held": "no_mapping", "part": f"d-t-0-{number % 50}"} if number % 10 == 0 else {"part": "d-t-0-999"}
    base = {"customer_id": "acme", "id_kind": "user", "decision": "billable", "cost_usd": Decimal("0.000145")}
    return EnrichedUsage(f"{number:032x}", number, **{"start": start, "end": start, **base, **held, **fields})


def put(stage: Stage, numbers: range, partition: int | None = None) -> None:
    """Enriched records, evenly over the partitions."""
    for number in numbers:
        place = number % stage.settings.kafka_partitions if partition is None else partition
        stage.producer.produce(stage.topics.enriched, msgspec.json.encode(usage(number)), b"acme", partition=place)
    stage.producer.flush(10 * PATIENCE)
