"""The SQL of docs/downstream.md, unchanged, and records as the meter writes them to `enriched`."""

import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import msgspec
from confluent_kafka import Producer

from schemas.records import EnrichedUsage
from tests.support.enriched import usage
from tests.support.eventually import PATIENCE
from tests.support.stage import Stage

PAGE = Path(__file__).parents[2] / "docs" / "downstream.md"
#: What one call of the recipes' tests costs: more decimals than a float keeps in a sum.
CENT = Decimal("0.0100000000001")


def recipe(chapter: str) -> list[str]:
    """Return the SQL blocks of a chapter."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def statements(sql: str) -> list[str]:
    """Return the statements of a block."""
    return [one.strip() for one in sql.split(";") if one.strip()]


def billed(numbers: Iterable[int], **fields: object) -> list[EnrichedUsage]:
    """Calls of two customers, each in its partition."""
    return [usage(one, **{"customer_id": f"customer-{one % 2}", "cost_usd": CENT, **fields}) for one in numbers]


def write(stage: Stage, calls: Iterable[EnrichedUsage], *, commit: bool = True) -> None:
    """Write calls as the meter does: in a transaction, each customer in one partition."""
    producer = Producer(
        {"bootstrap.servers": stage.settings.kafka_bootstrap_servers, "transactional.id": stage.topics.raw}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for call in calls:
        producer.produce(stage.topics.enriched, msgspec.json.encode(call), call.customer_id, partition=call.offset % 2)
    producer.flush(30 * PATIENCE)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)
