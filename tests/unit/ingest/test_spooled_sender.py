"""Laws of the spooled sender: Kafka first, the disk when it does not answer, and behind the disk while it holds anything."""

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
from tests.support.eventually import soon

MIB = 1 << 20


def record(number: int, size: int = 1) -> Record:
    return ("raw", "customer", str(number).encode().ljust(size), number)


@dataclass
class ScriptedKafka:
    """Takes records, or is away (`""` = silent forever), and refuses what is larger than `limit`."""

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
class Ground:
    """A sender over a scripted Kafka and a real file."""

    kafka: ScriptedKafka
    spool: Spool
    sender: SpooledSender
    told: list[tuple[str, object]]

    def drain(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.sender.drain())


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    kafka, told = ScriptedKafka(), list[tuple[str, object]]()
    spool = await Spool.at(tmp_path / "spool.db", MIB)
    hooks = SpoolHooks(
        on_spooled=lambda count: told.append(("spooled", count)),
        on_drained=lambda count: told.append(("drained", count)),
        on_rejected=lambda reason, count: told.append((reason, count)),
    )
    yield Ground(kafka, spool, SpooledSender(kafka, spool, "rejected", lambda: 7_000, 0.1, hooks), told)
    await spool.close()


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def test_while_kafka_answers_the_disk_is_not_touched(ground: Ground) -> None:
    refused = await ground.sender.send_all([record(1), record(2, 2000)])
    assert [(index, why.reason) for index, why in refused.items()] == [(1, "too_large")]
    assert (ground.kafka.stored, ground.told, ground.spool.records) == ([record(1)], [], 0)


@pytest.mark.parametrize("away", ["kafka_unavailable", "kafka_timeout", "topics_unchecked", "kafka_queue_full", ""])
async def test_what_kafka_does_not_take_is_on_disk_when_the_sender_returns(ground: Ground, away: str) -> None:
    ground.kafka.away = away
    assert await ground.sender.send_all([record(1), record(2)]) == {}
    assert (await ground.spool.oldest(10, MIB)).records == [record(1), record(2)]
    assert ground.told == [("spooled", 2)]
    assert (ground.spool.records, ground.spool.bytes, ground.spool.oldest_ms) == (2, 2, 1)


async def test_no_one_hears_of_a_record_before_the_disk_has_it(tmp_path: Path) -> None:
    class SlowDisk(SpoolFile):
        written = threading.Event()

        def append(self, groups: Sequence[Sequence[Record]]) -> list[Unavailable | None]:
            self.written.wait(10)
            return super().append(groups)

    file = SlowDisk(tmp_path / "spool.db", MIB)
    spool = Spool(file)
    sender = SpooledSender(ScriptedKafka(away="kafka_unavailable"), spool, "rejected", lambda: 0)
    sending = asyncio.ensure_future(sender.send_all([record(1)]))
    await asyncio.wait({sending}, timeout=0.2)
    assert not sending.done()
    file.written.set()
    assert await asyncio.wait_for(sending, 5) == {}
    assert (await spool.oldest(1, 1)).records == [record(1)]
    await spool.close()


async def test_only_the_first_wait_for_kafka_the_others_go_to_the_disk_at_once(ground: Ground) -> None:
    ground.kafka.away = ""
    for number in range(20):
        await ground.sender.send_all([record(number)])
    assert ground.kafka.asked == 1


async def test_the_spool_is_drained_in_order_and_what_comes_meanwhile_goes_behind_it(ground: Ground) -> None:
    ground.kafka.away = "kafka_unavailable"
    for number in range(3):
        await ground.sender.send_all([record(number)])
    draining = ground.drain()
    await soon(lambda: ground.kafka.asked >= 2)
    ground.kafka.away = None
    number = 3
    while ground.spool.records:
        await ground.sender.send_all([record(number)])
        number += 1
    await ground.sender.send_all([record(number)])
    assert ground.kafka.stored == [record(one) for one in range(number + 1)]
    assert ground.told[-1] != ("spooled", 1)
    await cancel(draining)


@pytest.mark.parametrize("how", ["kafka takes them", "kafka leaves again", "the drain is cancelled"])
async def test_what_comes_while_the_last_records_leave_waits_for_them_and_no_longer(ground: Ground, how: str) -> None:
    await ground.spool.put([record(1), record(2)])
    ground.kafka.holds = 2
    draining = ground.drain()
    await soon(lambda: ground.kafka.asked == 2)
    late = asyncio.ensure_future(ground.sender.send_all([record(3)]))
    await asyncio.sleep(0.05)
    assert (late.done(), ground.spool.records) == (False, 1)
    if how == "kafka leaves again":
        ground.kafka.away = "kafka_unavailable"
    if how == "the drain is cancelled":
        await cancel(draining)
    ground.kafka.going_on.set()
    assert await asyncio.wait_for(late, 1) == {}
    if how == "kafka takes them":
        assert (ground.kafka.stored, ground.told[-1]) == ([record(1), record(2), record(3)], ("drained", 1))
    else:
        assert (await ground.spool.oldest(9, MIB)).records == [record(2), record(3)]
    await cancel(draining)


async def test_a_broker_that_is_away_is_asked_with_one_record_not_with_all(ground: Ground) -> None:
    ground.kafka.away = "kafka_unavailable"
    for _ in range(5):
        await ground.sender.send_all([record(1), record(2), record(3)])
    ground.kafka.most = 0
    draining = ground.drain()
    await soon(lambda: ground.kafka.asked >= 3)
    assert ground.kafka.most == 1
    ground.kafka.away = None
    await soon(lambda: not ground.spool.records)
    assert ground.kafka.most == 14
    assert sum(int(str(count)) for what, count in ground.told if what == "drained") == 15
    await cancel(draining)


async def test_a_broker_that_left_again_is_asked_with_one_record_again(ground: Ground) -> None:
    ground.kafka.away = "kafka_unavailable"
    draining = ground.drain()
    for _ in range(2):
        await ground.sender.send_all([record(1), record(2), record(3)])
        ground.kafka.away = None
        await soon(lambda: not ground.spool.records)
        ground.kafka.away = "kafka_unavailable"
    await ground.sender.send_all([record(1), record(2), record(3)])
    asked = ground.kafka.asked
    await soon(lambda: ground.kafka.asked > asked)
    ground.kafka.most = 0
    await soon(lambda: ground.kafka.asked > asked + 1)
    assert ground.kafka.most == 1
    await cancel(draining)


async def test_what_kafka_refuses_for_good_is_rejected_and_the_rest_goes_on(ground: Ground) -> None:
    ground.kafka.away = "kafka_unavailable"
    await ground.sender.send_all([record(1), record(2, 2000), record(3)])
    ground.kafka.away = None
    draining = ground.drain()
    await soon(lambda: not ground.spool.records)
    [rejected] = [one for one in ground.kafka.stored if one[0] == "rejected"]
    assert rejected[1] == "customer"
    assert rejected[3] == 7
    told = msgspec.json.decode(rejected[2], type=Rejection)
    assert (told.reason, told.stage, told.length) == ("too_large", "ingress", 2000)
    assert [one for one in ground.kafka.stored if one[0] == "raw"] == [record(1), record(3)]
    assert ("too_large", 1) in ground.told
    await cancel(draining)


async def test_neither_kafka_nor_the_disk_is_unavailable_and_nothing_is_half_kept(ground: Ground) -> None:
    ground.kafka.away = "kafka_unavailable"
    with pytest.raises(Unavailable) as caught:
        await ground.sender.send_all([record(1), record(2, 2 * MIB)])
    assert caught.value.reason == "spool_full"
    assert (ground.spool.records, ground.spool.bytes, (await ground.spool.oldest(9, MIB)).records) == (0, 0, [])
    assert ground.sender.shut_because() == "", "with an empty spool the next one may fit, or Kafka be back"
    await ground.sender.send_all([record(1)])
    with pytest.raises(Unavailable):
        await ground.sender.send_all([record(2, 2 * MIB)])
    assert ground.sender.shut_because() == "spool_full"
    await ground.sender.send_all([record(3)])
    assert ground.sender.shut_because() == ""


@pytest.mark.parametrize("reason", ["kafka_fatal", "kafka_closed"])
async def test_a_producer_that_has_given_up_ends_the_drain_and_so_the_process(ground: Ground, reason: str) -> None:
    """It would never drain again, and only a new process has a new producer."""
    ground.kafka.away = reason
    await ground.sender.send_all([record(1)])
    with pytest.raises(Unavailable) as caught:
        await asyncio.wait_for(ground.sender.drain(), 5)
    assert caught.value.reason == reason


async def test_a_request_that_ran_out_of_time_is_kept_all_the_same_and_counted_once(ground: Ground) -> None:
    await ground.spool.put([record(0)])
    with pytest.raises(TimeoutError), SharedDeadline(0.0):
        await ground.sender.send_all([record(1)])
    await soon(lambda: not ground.spool._puts)
    assert (await ground.spool.oldest(9, MIB)).records == [record(0), record(1)]
    assert ground.spool.records == 2


async def test_many_puts_share_a_commit_and_keep_their_order(ground: Ground) -> None:
    await asyncio.gather(*(ground.spool.put([record(number)]) for number in range(500)))
    assert (await ground.spool.oldest(999, MIB)).records == [record(number) for number in range(500)]


async def test_puts_larger_than_a_commit_are_written_one_after_the_other(tmp_path: Path) -> None:
    spool = await Spool.at(tmp_path / "spool.db", 64 * MIB)
    sizes = [3 * MIB, 3 * MIB, 5 * MIB, 1]
    await asyncio.wait_for(asyncio.gather(*(spool.put([record(n, size)]) for n, size in enumerate(sizes))), 20)
    for number, size in enumerate(sizes):
        batch = await spool.oldest(1, MIB)
        assert batch.records == [record(number, size)]
        await spool.delete(batch)
    assert (spool.records, spool.bytes) == (0, 0)
    await spool.close()


async def test_a_drain_that_is_cancelled_at_any_point_loses_nothing(ground: Ground) -> None:
    await ground.spool.put([record(number) for number in range(100)])
    for _ in range(50):
        draining = ground.drain()
        for _ in range(len(ground.kafka.stored) % 7):
            await asyncio.sleep(0.001)
        await cancel(draining)
    draining = ground.drain()
    await soon(lambda: not ground.spool.records)
    await cancel(draining)
    assert set(ground.kafka.stored) == {record(number) for number in range(100)}


async def test_a_new_spool_on_an_old_file_has_its_depth_its_age_and_drains_it(tmp_path: Path) -> None:
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


async def test_a_bug_in_writing_reaches_who_waits_and_not_the_next_one(ground: Ground) -> None:
    with pytest.raises(UnicodeEncodeError):
        await ground.spool.put([("raw", "\ud800", b"", 0)])
    await ground.spool.put([record(1)])
    assert ground.spool.records == 1
