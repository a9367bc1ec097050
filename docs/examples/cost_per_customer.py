"""Adds up what each LiteLLM customer is billed, from the topic `litellm.usage.enriched`. Copy it, and change what you need.

    python cost_per_customer.py localhost:9092 litellm.usage.enriched totals.db [--until-end]

It needs `pip install confluent-kafka` and nothing of Meterbridge: the format is in schemas/json/EnrichedUsage.schema.json.
Sums, the calls that they contain and the position in Kafka are changed in one transaction of SQLite. So it may be killed at
any moment, and a record that comes twice counts once. With `--until-end` it stops when it has read what there is.
"""

import json
import sqlite3
import sys
from decimal import Decimal

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

TABLES = """
CREATE TABLE IF NOT EXISTS calls (customer TEXT, identity TEXT, PRIMARY KEY (customer, identity)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (customer TEXT PRIMARY KEY, calls INTEGER, usd TEXT);
CREATE TABLE IF NOT EXISTS positions (kafka_partition INTEGER PRIMARY KEY, next INTEGER);
"""
BILLED = ("billable", "failed_with_cost")


def billed(call: dict) -> Decimal | None:
    """Dollars of a call, None if it is not billed. Amounts are text, because a float would change them."""
    if call["decision"] not in BILLED:
        return None
    return Decimal(call["cost_usd"] if call.get("billed_usd") is None else call["billed_usd"])


def count(database: sqlite3.Connection, call: dict) -> None:
    """Add a call to its customer's sum, unless it is in there. A call that is not billed may come again, billed."""
    usd = billed(call)
    if usd is None:
        return
    key = (call["customer_id"], call["identity"])
    if not database.execute("INSERT OR IGNORE INTO calls VALUES (?, ?)", key).rowcount:
        return
    row = database.execute("SELECT calls, usd FROM totals WHERE customer = ?", key[:1]).fetchone() or (0, "0")
    database.execute("REPLACE INTO totals VALUES (?, ?, ?)", (key[0], row[0] + 1, str(Decimal(row[1]) + usd)))


def store(database: sqlite3.Connection, messages: list[Message]) -> None:
    """Count the calls of these records and remember the position behind them: both, or neither."""
    with database:
        for message in messages:
            count(database, json.loads(message.value()))
            position = (message.partition(), message.offset() + 1)
            database.execute("REPLACE INTO positions VALUES (?, ?)", position)


def main(servers: str, topic: str, path: str, *, until_end: bool) -> None:
    """Read until the process is stopped, or until the end."""
    database = sqlite3.connect(path, timeout=30)
    database.executescript(TABLES)
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "cost-per-customer",
            "isolation.level": "read_committed",  # without it, usage of aborted transactions is counted
            "enable.auto.commit": False,  # the position is in the database, beside the sums
            "auto.offset.reset": "error",  # records that were deleted unread are no reason to go on in silence
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    known = dict(database.execute("SELECT kafka_partition, next FROM positions"))
    starts = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[0] for number in partitions
    }
    consumer.assign([TopicPartition(topic, number, known.get(number, starts[number])) for number in partitions])
    ended: set[int] = set()
    while not (until_end and len(ended) == len(partitions)):
        messages = []
        for message in consumer.consume(500, timeout=1):
            error = message.error()
            if error is None:
                messages.append(message)
                ended.discard(message.partition())
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # the library has no public name for it
                ended.add(message.partition())
            else:
                raise SystemExit(error.str())
        store(database, messages)
    for customer, calls, usd in database.execute("SELECT customer, calls, usd FROM totals ORDER BY customer"):
        print(f"{customer}\t{calls}\t{usd}")
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:4], until_end="--until-end" in sys.argv[4:])
