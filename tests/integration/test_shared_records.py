"""Records of a compacted topic are changed one after the other, by any number of processes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import msgspec
import pytest

from connectors.billing.mappings import Known
from connectors.kafka.compacted_writer import CompactedTopicWriter
from schemas.customers import CustomerRecord, MappingVersion
from schemas.errors import Rejected, Unavailable
from streams.runtime.compacted_table import CompactedTable
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka
from tests.support.stage import Stage

CUSTOMER = "customer-1"
_MOMENTS = count()
Part = tuple[CompactedTable[CustomerRecord], CompactedTopicWriter[CustomerRecord]]


@asynccontextmanager
async def processes(stage: Stage, number: int) -> AsyncIterator[list[Part]]:
    """Yield this number of tables, each with its own writer, as in separate processes."""
    async with AsyncExitStack() as stack:
        parts: list[Part] = []
        for _ in range(number):
            view = CompactedTable(stage.kafka, stage.topics.customers, CustomerRecord, time.monotonic, "customers")
            records = CompactedTopicWriter(view, stage.kafka, stage.topics.customers)
            stack.push_async_callback(view.stop)
            stack.push_async_callback(records.close)
            await view.start()
            parts.append((view, records))
        yield parts


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    return Stage(kafka.bootstrap, topic_prefix)


def with_one_more(known: Known) -> CustomerRecord:
    """A change that contains the number of changes before it, and differs from every other."""
    versions = known.versions if known is not None else ()
    version = MappingVersion(len(versions), "org", "tenant", updated_at=next(_MOMENTS))
    return CustomerRecord(CUSTOMER, (*versions, version), 0, len(versions))


def stored(stage: Stage, customer_id: str = CUSTOMER) -> list[CustomerRecord | None]:
    """Every committed record of a customer, oldest first; None = deleted."""
    return [
        None if message.value() is None else msgspec.json.decode(message.value(), type=CustomerRecord)
        for message in stage.read(stage.topics.customers)
        if message.key() == customer_id.encode()
    ]


async def test_two_processes_that_change_one_customer_concurrently_lose_nothing(stage: Stage) -> None:
    """Each change starts from the record at the time of writing: a lost one would be a wrong payer."""
    async with processes(stage, 2) as parts:
        await asyncio.gather(*(records.change(CUSTOMER, with_one_more) for _, records in parts for _ in range(15)))
    versions = [len(record.versions) for record in stored(stage) if record is not None]
    assert versions == list(range(1, 31))


async def test_a_change_is_visible_to_the_process_that_made_it(stage: Stage) -> None:
    async with processes(stage, 1) as [(view, records)]:
        written = await records.change(CUSTOMER, with_one_more)
        assert view.table[CUSTOMER] == written
        assert await records.change(CUSTOMER, lambda _: None) is None
        assert CUSTOMER not in view.table
    assert stored(stage) == [written, None]


async def test_many_customers_are_few_transactions_and_a_bad_change_does_not_affect_the_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, write = list[int](), CompactedTopicWriter._write

    async def counted(writer: Any, changes: Any) -> None:
        sizes.append(len(changes))
        await write(writer, changes)

    monkeypatch.setattr(CompactedTopicWriter, "_write", counted)

    def refused(_: Known) -> CustomerRecord:
        raise Rejected("not_this_one")

    def of(name: str) -> CustomerRecord:
        return CustomerRecord(name, (MappingVersion(0, "org", "tenant"),), 0, 0)

    async with processes(stage, 1) as [(view, records)]:
        names = [f"c{number}" for number in range(200)]
        await records.change("first", lambda _: of("first"))
        asked = [records.change(name, lambda _, own=name: of(own)) for name in names]
        answers = await asyncio.gather(records.change("bad", refused), *asked, return_exceptions=True)
        assert (sum(sizes), len(sizes) <= 4) == (201, True), sizes
        assert isinstance(answers[0], Rejected)
        assert answers[1:] == [view.table[name] for name in names]
    ends = {message.key().decode() for message in stage.read(stage.topics.customers)}
    assert ends == {"first", *names}


async def test_a_refusal_is_never_based_on_an_outdated_record(stage: Stage) -> None:
    """The table of a process may be a second old; `If-Match` compares with the actual record."""
    seen: list[int] = []

    def only_of_two(known: Known) -> Known:
        seen.append(0 if known is None else len(known.versions))
        if seen[-1] != 2:
            raise Rejected("not_two")
        return with_one_more(known)

    async with processes(stage, 2) as [(_, one), (_, other)]:
        await one.change(CUSTOMER, with_one_more)
        await other.change(CUSTOMER, with_one_more)
        changed = await one.change(CUSTOMER, only_of_two)
        assert changed is not None
        assert len(changed.versions) == 3
        with pytest.raises(Rejected, match="not_two"):
            await other.change(CUSTOMER, only_of_two)


async def test_a_change_that_cannot_be_logged_is_not_made(stage: Stage) -> None:
    """A change without its line in the audit log must not exist."""

    async def deaf(_before: Known, _after: Known) -> None:
        raise Unavailable("audit_away")

    async with processes(stage, 1) as [(view, records)]:
        with pytest.raises(Unavailable, match="audit_away"):
            await records.change(CUSTOMER, with_one_more, deaf)
        assert CUSTOMER not in view.table
    assert stored(stage) == []


async def test_a_caller_who_leaves_before_the_answer_delays_no_other(stage: Stage) -> None:
    async with processes(stage, 1) as [(_, records)]:
        leaving = [asyncio.ensure_future(records.change(CUSTOMER, with_one_more)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in leaving[1:]:
            task.cancel()
        await asyncio.wait_for(records.change(CUSTOMER, with_one_more), 10 * PATIENCE)
        assert await leaving[0] is not None
    assert [len(record.versions) for record in stored(stage) if record is not None] == [1, 2]


async def test_if_kafka_is_unavailable_the_answer_says_that_a_retry_is_possible(stage: Stage) -> None:
    nobody = {"bootstrap_servers": "127.0.0.1:1"}
    async with processes(stage, 1) as [(view, _)]:
        records = CompactedTopicWriter(view, nobody, stage.topics.customers, limit_s=1.0)
        with pytest.raises(Unavailable, match="kafka_unavailable"):
            await records.change(CUSTOMER, with_one_more)
        await records.close()
