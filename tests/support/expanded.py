"""A deployment that grows: its calls, the workers before and after, and what was billed."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from connectors.kafka.admin import create_topics
from connectors.operations.unread import unread
from schemas.moments import SECOND_US
from streams.components import Components
from tests.support.calls import Raw, raw, slp
from tests.support.command import Ended, meterbridge
from tests.support.eventually import PATIENCE, eventually, soon
from tests.support.partition_states import is_all_sealed
from tests.support.stage import Stage
from tests.support.values import topics_of

NAMES = tuple(f"customer-{number}" for number in range(12))
GHOSTS = ("ghost-1", "ghost-2", "ghost-3", "ghost-4")
CENTS = Decimal(50)


@dataclass
class Clock:
    """A wall clock that is stopped until a test starts it, so that windows stay open."""

    us: int = field(default_factory=lambda: time.time_ns() // 1000)
    going_since_ns: int = 0

    def __call__(self) -> int:
        """Microseconds since 1970 UTC."""
        gone_ns = time.monotonic_ns() - self.going_since_ns if self.going_since_ns else 0
        return self.us + gone_ns // 1000

    def pass_by(self, seconds: int) -> None:
        """Advance the clock."""
        self.us += seconds * SECOND_US

    def go(self) -> None:
        """Let the clock run from now on."""
        self.going_since_ns = self.going_since_ns or time.monotonic_ns()


class Growing:
    """One deployment on `bootstrap`, before and after its raw topic has grown."""

    def __init__(self, bootstrap: str, prefix: str, old: int, new: int) -> None:
        self.bootstrap, self.prefix, self.old, self.new = bootstrap, prefix, old, new
        self.stage = Stage(bootstrap, prefix, old)
        self.clock = Clock()
        self.sent: dict[int, Raw] = {}
        for name in NAMES:
            self.stage.map(name, "org", "sub")

    def calls(self, numbers: Iterable[int], names: Sequence[str] = NAMES) -> list[Raw]:
        """Calls of 50 cents, customer after customer; each is billed once, however often it is put."""
        at = self.clock()
        created = [
            raw(0, slp(n, at_us=at, cost="0.5"), customer=names[n % len(names)], received_us=at) for n in numbers
        ]
        self.sent |= dict(zip(numbers, created, strict=True))
        return created

    def put_by_new_clients(self, records: Sequence[Raw]) -> None:
        """Write records by a producer that begins now, so that it knows today's number of partitions."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"})
        for record in records:
            producer.produce(self.stage.topics.raw, record.value, record.key, timestamp=record.timestamp)
        producer.flush(10 * PATIENCE)

    def parts(self) -> Components:
        """Return the parts, by the names that commands use."""
        return self.stage.parts(now_us=self.clock)

    async def meter(self, *, until: int, sealed: bool = False) -> None:
        """Run the meter until it has decided about `until` calls in this life, repeats among them.

        `sealed`: and until all of its windows but the held ones are events.
        """
        self.stage.sensors.calls.clear()
        async with self.stage.running("meter", self.parts()) as role:
            await self.meter_has_counted(until)
            tasks: Any = role.partition_tasks
            if sealed:
                await soon(lambda: is_all_sealed(tasks), limit_s=40)

    async def meter_has_counted(self, count: int) -> None:
        """Wait until the running meter has decided about this number of calls."""
        await soon(lambda: sum(self.stage.sensors.calls.values()) >= count, limit_s=40)

    async def halted(self, count: int) -> None:
        """Wait until this number of partitions has halted."""
        await soon(lambda: len({place for _, place, _ in self.stage.sensors.halted}) >= count, limit_s=40)

    async def bill(self, count: int) -> None:
        """Run the meter, two minutes later, until `count` calls are billed."""
        self.clock.pass_by(120)
        self.clock.go()
        async with self.stage.running("meter", self.parts()) as role:
            await soon(lambda: self.billed()[0] >= count, limit_s=40)
            await soon(lambda: not self.unread(), limit_s=40)
            tasks: Any = role.partition_tasks  # a call counted twice would still be open
            await soon(lambda: is_all_sealed(tasks), limit_s=40)

    async def expand(self, *words: str, partitions: int | None = None) -> Ended:
        """Run the command as an operator does."""
        number = str(self.new if partitions is None else partitions)
        return await meterbridge(self.stage, "topics", "expand", "--partitions", number, "--json", *words)

    def grown(self) -> None:
        """Configure all processes with the new number from now on."""
        self.stage = Stage(self.bootstrap, self.prefix, self.new)

    def lose_changelog(self) -> None:
        """Delete the topic as by mistake, and create it again."""
        self.lose(self.stage.topics.changelog)

    def lose(self, name: str) -> None:
        """Delete a topic as by mistake, and create it again."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.delete_topics([name])[name].result()
        eventually(lambda: name not in admin.list_topics(timeout=10 * PATIENCE).topics)
        create_topics(*topics_of(self.stage.settings))

    def billed(self) -> tuple[int, Decimal]:
        """Calls and cents of all events."""
        events = self.stage.values(self.stage.topics.events)
        cents = sum((Decimal(event["precise_total_amount_cents"]) for event in events), Decimal(0))
        return sum(int(event["properties"]["requests"]) for event in events), cents

    def unread(self) -> int:
        """Records of the raw topic that the meter has not read."""
        return unread(self.stage.deployment)["raw"].records

    async def each_call_is_billed_once(self) -> None:
        """All calls are sent again and all customers mapped: each call must be billed once, to the cent."""
        for ghost in GHOSTS:
            self.stage.map(ghost, "org", "sub")
        self.put_by_new_clients([*self.sent.values()])
        await self.bill(len(self.sent))
        assert self.billed() == (len(self.sent), len(self.sent) * CENTS)
        await self.sound()

    async def sound(self) -> None:
        """Ledgers add up, events are there, topics are right."""
        for words in (("reconcile", "--json"), ("topics", "check", "--json")):
            ended = await meterbridge(self.stage, *words)
            assert ended.code == 0, ended.out + ended.err
