"""The spooled sender: Kafka first, the disk while Kafka does not answer, and the disk also for new records until it is
empty.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from connectors.ingest.shared_deadline import SharedDeadline
from connectors.ingest.spool import Spool
from connectors.ingest.spool_file import SpoolFile
from connectors.ingest.spooling_producer import SpooledSender, SpoolHooks
from connectors.kafka.producer import Record
from schemas.errors import Rejected, Unavailable
from schemas.records import Rejection
from tests.support.eventually import PATIENCE, soon

MIB = 1 << 20


def record(number: int, size: int = 1) -> Record:
    return ("raw", "customer", str(number).encode().ljust(size), number)


@dataclass
class ScriptedKafka:
    """Accepts records, or is unavailable (`""`: silent forever), and refuses records larger than `limit`."""

    stored: list[Record] = field(default_factory=list)
    away: str | None = None
    limit: int = 1000
    asked: int = 0
    most: int = 0
    holds: int = -1  # the number of the request that is answered once `going_on` is set
    going_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        self.asked += 1
        self.most = max(self.most, len(records))
        await asyncio.sleep(0)
        if self.asked == self.holds:
            await self.going_on.wait()
        if self.away == "":
            await asyncio.Event().wait()
        if self.away:
            raise Unavailable(self.away)
        refused = {index: Rejected("too_large") for index, one in enumerate(records) if len(one[2]) > self.limit}
        self.stored += [one for index, one in enumerate(records) if index not in refused]
        return refused


@dataclass
class SenderSetup:
    """A sender with a scripted Kafka and a real file."""

    kafka: ScriptedKafka
    spool: Spool
    sender: SpooledSender
    reported: list[tuple[str, object]]

    def drain(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.sender.drain())


@pytest.fixture
async def sender_setup(tmp_path: Path) -> AsyncIterator[SenderSetup]:
    kafka, result = ScriptedKafka(), list[tuple[str, object]]()
    spool = await Spool.at(tmp_path / "spool.db", MIB)
    hooks = SpoolHooks(
        on_spooled=lambda count: result.append(("spooled", count)),
        on_drained=lambda count: result.append(("drained", count)),
        on_rejected=lambda reason, count: result.append((reason, count)),
    )
    yield SenderSetup(kafka, spool, SpooledSender(kafka, spool, "rejected", lambda: 7_000, 0.1, hooks), result)
    await spool.close()


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def test_while_kafka_answers_the_disk_is_not_used(sender_setup: SenderSetup) -> None:
    refused = await sender_setup.sender.send_all([record(1), record(2, 2000)])
    assert [(index, why.reason) for index, why in refused.items()] == [(1, "too_large")]
    assert (sender_setup.kafka.stored, sender_setup.reported, sender_setup.spool.records) == ([record(1)], [], 0)


@pytest.mark.parametrize("away", ["kafka_unavailable", "kafka_timeout", "topics_unchecked", "kafka_queue_full", ""])
async def test_a_record_that_kafka_does_not_accept_is_on_disk_when_the_sender_returns(
    sender_setup: SenderSetup, away: str
) -> None:
    sender_setup.kafka.away = away
    assert await sender_setup.sender.send_all([record(1), record(2)]) == {}
    assert (await sender_setup.spool.oldest(10, MIB)).records == [record(1), record(2)]
    assert sender_setup.reported == [("spooled", 2)]
    assert (sender_setup.spool.records, sender_setup.spool.bytes, sender_setup.spool.oldest_ms) == (2, 2, 1)


async def test_a_record_is_not_confirmed_before_it_is_on_disk(tmp_path: Path) -> None:
    class SlowDisk(SpoolFile):
        written = threading.Event()

        def append(self, groups: Sequence[Sequence[Record]]) -> list[Unavailable | None]:
            self.written.wait(10 * PATIENCE)
            return super().append(groups)

    file = SlowDisk(tmp_path / "spool.db", MIB)
    spool = Spool(file)
    sender = SpooledSender(ScriptedKafka(away="kafka_unavailable"), spool, "rejected", lambda: 0)
    sending = asyncio.ensure_future(sender.send_all([record(1)]))
    await asyncio.wait({sending}, timeout=0.2)
    assert not sending.done()
    file.written.set()
    assert await asyncio.wait_for(sending, 5 * PATIENCE) == {}
    assert (await spool.oldest(1, 1)).records == [record(1)]
    await spool.close()


async def test_only_the_first_records_wait_for_kafka_and_later_ones_go_to_the_disk_at_once(
    sender_setup: SenderSetup,
) -> None:
    sender_setup.kafka.away = ""
    for number in range(20):
        await sender_setup.sender.send_all([record(number)])
    assert sender_setup.kafka.asked == 1


async def test_the_spool_is_drained_in_order_and_new_records_go_behind_it(sender_setup: SenderSetup) -> None:
    sender_setup.kafka.away = "kafka_unavailable"
    for number in range(3):
        await sender_setup.sender.send_all([record(number)])
    draining = sender_setup.drain()
    await soon(lambda: sender_setup.kafka.asked >= 2)
    sender_setup.kafka.away = None
    number = 3
    while sender_setup.spool.records:
        await sender_setup.sender.send_all([record(number)])
        number += 1
    await sender_setup.sender.send_all([record(number)])
    assert sender_setup.kafka.stored == [record(one) for one in range(number + 1)]
    assert sender_setup.reported[-1] != ("spooled", 1)
    await cancel(draining)


@pytest.mark.parametrize("how", ["kafka takes them", "kafka leaves again", "the drain is cancelled"])
async def test_records_that_arrive_while_the_last_ones_are_drained_wait_for_them_and_no_longer(
    sender_setup: SenderSetup, how: str
) -> None:
    await sender_setup.spool.put([record(1), record(2)])
    sender_setup.kafka.holds = 2
    draining = sender_setup.drain()
    await soon(lambda: sender_setup.kafka.asked == 2)
    late = asyncio.ensure_future(sender_setup.sender.send_all([record(3)]))
    await asyncio.sleep(0.05)
    assert (late.done(), sender_setup.spool.records) == (False, 1)
    if how == "kafka leaves again":
        sender_setup.kafka.away = "kafka_unavailable"
    if how == "the drain is cancelled":
        await cancel(draining)
    sender_setup.kafka.going_on.set()
    assert await asyncio.wait_for(late, 1 * PATIENCE) == {}
    if how == "kafka takes them":
        assert (sender_setup.kafka.stored, sender_setup.reported[-1]) == (
            [record(1), record(2), record(3)],
            ("drained", 1),
        )
    else:
        assert (await sender_setup.spool.oldest(9, MIB)).records == [record(2), record(3)]
    await cancel(draining)


async def test_an_unavailable_broker_is_tried_with_one_record_and_not_with_all(sender_setup: SenderSetup) -> None:
    sender_setup.kafka.away = "kafka_unavailable"
    for _ in range(5):
        await sender_setup.sender.send_all([record(1), record(2), record(3)])
    sender_setup.kafka.most = 0
    draining = sender_setup.drain()
    await soon(lambda: sender_setup.kafka.asked >= 3)
    assert sender_setup.kafka.most == 1
    sender_setup.kafka.away = None
    await soon(lambda: not sender_setup.spool.records)
    assert sender_setup.kafka.most == 14
    assert sum(int(str(count)) for what, count in sender_setup.reported if what == "drained") == 15
    await cancel(draining)


async def test_a_broker_that_is_unavailable_again_is_tried_with_one_record_again(sender_setup: SenderSetup) -> None:
    sender_setup.kafka.away = "kafka_unavailable"
    draining = sender_setup.drain()
    for _ in range(2):
        await sender_setup.sender.send_all([record(1), record(2), record(3)])
        sender_setup.kafka.away = None
        await soon(lambda: not sender_setup.spool.records)
        sender_setup.kafka.away = "kafka_unavailable"
    await sender_setup.sender.send_all([record(1), record(2), record(3)])
    asked = sender_setup.kafka.asked
    await soon(lambda: sender_setup.kafka.asked > asked)
    sender_setup.kafka.most = 0
    await soon(lambda: sender_setup.kafka.asked > asked + 1)
    assert sender_setup.kafka.most == 1
    await cancel(draining)


async def test_a_record_that_kafka_refuses_permanently_is_rejected_and_the_others_go_on(
    sender_setup: SenderSetup,
) -> None:
    sender_setup.kafka.away = "kafka_unavailable"
    await sender_setup.sender.send_all([record(1), record(2, 2000), record(3)])
    sender_setup.kafka.away = None
    draining = sender_setup.drain()
    await soon(lambda: not sender_setup.spool.records)
    [rejected] = [one for one in sender_setup.kafka.stored if one[0] == "rejected"]
    assert rejected[1] == "customer"
    assert rejected[3] == 7
    result = msgspec.json.decode(rejected[2], type=Rejection)
    assert (result.reason, result.stage, result.length) == ("too_large", "ingress", 2000)
    assert [one for one in sender_setup.kafka.stored if one[0] == "raw"] == [record(1), record(3)]
    assert ("too_large", 1) in sender_setup.reported
    await cancel(draining)


async def test_without_kafka_and_disk_the_sender_is_unavailable_and_nothing_is_stored_in_part(
    sender_setup: SenderSetup,
) -> None:
    sender_setup.kafka.away = "kafka_unavailable"
    with pytest.raises(Unavailable) as caught:
        await sender_setup.sender.send_all([record(1), record(2, 2 * MIB)])
    assert caught.value.reason == "spool_full"
    assert (
        sender_setup.spool.records,
        sender_setup.spool.bytes,
        (await sender_setup.spool.oldest(9, MIB)).records,
    ) == (0, 0, [])
    assert sender_setup.sender.shut_because() == "", "with an empty spool the next one may fit, or Kafka be back"
    await sender_setup.sender.send_all([record(1)])
    with pytest.raises(Unavailable):
        await sender_setup.sender.send_all([record(2, 2 * MIB)])
    assert sender_setup.sender.shut_because() == "spool_full"
    await sender_setup.sender.send_all([record(3)])
    assert sender_setup.sender.shut_because() == ""


@pytest.mark.parametrize("reason", ["kafka_fatal", "kafka_closed"])
async def test_a_producer_with_a_fatal_error_ends_the_drain_and_the_process(
    sender_setup: SenderSetup, reason: str
) -> None:
    """It could never drain again, and only a new process creates a new producer."""
    sender_setup.kafka.away = reason
    await sender_setup.sender.send_all([record(1)])
    with pytest.raises(Unavailable) as caught:
        await asyncio.wait_for(sender_setup.sender.drain(), 5 * PATIENCE)
    assert caught.value.reason == reason


async def test_a_request_that_timed_out_is_stored_all_the_same_and_counted_once(sender_setup: SenderSetup) -> None:
    await sender_setup.spool.put([record(0)])
    with pytest.raises(TimeoutError), SharedDeadline(0.0):
        await sender_setup.sender.send_all([record(1)])
    await soon(lambda: not sender_setup.spool._puts)
    assert (await sender_setup.spool.oldest(9, MIB)).records == [record(0), record(1)]
    assert sender_setup.spool.records == 2


async def test_concurrent_writes_share_a_commit_and_keep_their_order(sender_setup: SenderSetup) -> None:
    await asyncio.gather(*(sender_setup.spool.put([record(number)]) for number in range(500)))
    assert (await sender_setup.spool.oldest(999, MIB)).records == [record(number) for number in range(500)]


async def test_writes_larger_than_a_commit_are_made_one_after_the_other(tmp_path: Path) -> None:
    spool = await Spool.at(tmp_path / "spool.db", 64 * MIB)
    sizes = [3 * MIB, 3 * MIB, 5 * MIB, 1]
    await asyncio.wait_for(
        asyncio.gather(*(spool.put([record(n, size)]) for n, size in enumerate(sizes))), 20 * PATIENCE
    )
    for number, size in enumerate(sizes):
        batch = await spool.oldest(1, MIB)
        assert batch.records == [record(number, size)]
        await spool.delete(batch)
    assert (spool.records, spool.bytes) == (0, 0)
    await spool.close()


async def test_a_drain_that_is_cancelled_at_any_point_loses_nothing(sender_setup: SenderSetup) -> None:
    await sender_setup.spool.put([record(number) for number in range(100)])
    for _ in range(50):
        draining = sender_setup.drain()
        for _ in range(len(sender_setup.kafka.stored) % 7):
            await asyncio.sleep(0.001)
        await cancel(draining)
    draining = sender_setup.drain()
    await soon(lambda: not sender_setup.spool.records)
    await cancel(draining)
    assert set(sender_setup.kafka.stored) == {record(number) for number in range(100)}


async def test_a_new_spool_on_an_existing_file_has_its_depth_and_age_and_drains_it(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = await Spool.at(path, MIB)
    await spool.put([record(5), record(6)])
    await spool.close()
    again, kafka = await Spool.at(path, MIB), ScriptedKafka()
    assert (again.records, again.bytes, again.oldest_ms) == (2, 2, 5)
    sender = SpooledSender(kafka, again, "rejected", lambda: 0)
    await sender.send_all([record(7)])
    draining = asyncio.ensure_future(sender.drain())
    await soon(lambda: not again.records)
    assert kafka.stored == [record(5), record(6), record(7)]
    assert again.oldest_ms is None
    await cancel(draining)
    await again.close()


async def test_a_bug_in_writing_is_raised_to_its_caller_and_not_to_the_next_one(sender_setup: SenderSetup) -> None:
    with pytest.raises(UnicodeEncodeError):
        await sender_setup.spool.put([("raw", "\ud800", b"", 0)])
    await sender_setup.spool.put([record(1)])
    assert sender_setup.spool.records == 1


async def test_a_page_that_cannot_be_read_does_not_stop_the_records_behind_it(tmp_path: Path) -> None:
    """In an earlier version nothing behind it was ever sent, and every new record went into the spool until it was full."""
    path, kafka = tmp_path / "spool.db", ScriptedKafka(limit=MIB)
    before = SpoolFile(path, 64 * MIB)
    before.append([[record(number, 20_000) for number in range(500)]])  # more than SQLite keeps in memory
    before.close()
    spool = await Spool.at(path, 64 * MIB)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096)
    draining = asyncio.ensure_future(SpooledSender(kafka, spool, "rejected", lambda: 7_000).drain())
    try:
        await soon(lambda: (spool.records, spool.bytes, spool.oldest_ms) == (0, 0, None))
    finally:
        await cancel(draining)
        await spool.close()
    assert 450 < len(kafka.stored) < 500
    assert [one[3] for one in kafka.stored] == sorted(one[3] for one in kafka.stored)
    assert {kafka.stored[0][3], kafka.stored[-1][3]} == {0, 499}
    assert _kept(path) == 1


def _kept(path: Path) -> int:
    return len(list(path.parent.glob(f"{path.name}.damaged-*")))
