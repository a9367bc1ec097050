"""A broker that is cut off from the controllers still answers from its old copy: no ledger is opened with it."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from aiokafka.errors import KafkaError
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from connectors.config.settings import load_settings
from connectors.kafka.admin import create_topics
from schemas.errors import TopicProblem
from schemas.topics import TopicNames
from streams.core.mapping.resolve import Target
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes
from streams.state.ledger import Ledger, LedgerCache, LedgerConfig
from tests.support.calls import NOON, raw, slp
from tests.support.eventually import PATIENCE, soon
from tests.support.kafka.cluster import REPLICATED
from tests.support.kafka.maven import MavenKafka
from tests.support.kafka.node import member
from tests.support.ports import free_port
from tests.support.stage import QUICK
from tests.support.values import topics_of
from tests.support.wire import Wire

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.xdist_group("three brokers")]

PARTITIONS, INTERNAL = 6, 8
#: The broker that is cut off; only the first one is a controller.
STALE = 3
#: A broker learns the address of the controller for its own listener, so the one behind the wire has one of its own.
_LISTENERS = {"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,WIRE:PLAINTEXT"}
TOPICS = TopicNames.with_prefix("")


class Brokers:
    """One controller and broker, and two brokers of which one asks the controller through a wire."""

    def __init__(self) -> None:
        self.ports = [free_port() for _ in range(3)]
        self.controller, self.behind_wire = free_port(), free_port()
        self.wire = Wire(self.behind_wire)
        self.nodes: list[MavenKafka] = []

    async def start(self) -> None:
        await self.wire.join()
        cluster = str(uuid.uuid4())
        for number, port in enumerate(self.ports):
            own, first = f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{self.controller}"
            settings = member(number, self.ports, [self.controller] * 3) | _LISTENERS
            settings |= {"controller.quorum.voters": f"1@127.0.0.1:{self.controller}", "listeners": own}
            if number:
                settings["process.roles"] = "broker"
            else:
                settings["listeners"] += f",{first},WIRE://127.0.0.1:{self.behind_wire}"
                settings["advertised.listeners"] = f"{own},{first},WIRE://127.0.0.1:{self.wire.port}"
                settings["controller.listener.names"] = "CONTROLLER,WIRE"
            if number + 1 == STALE:
                settings["controller.quorum.voters"] = f"1@127.0.0.1:{self.wire.port}"
                settings["controller.listener.names"] = "WIRE"
            self.nodes.append(await asyncio.to_thread(MavenKafka, settings, port=port, cluster=cluster))
        for node in self.nodes:
            await asyncio.to_thread(node.wait)

    def at(self, *numbers: int) -> str:
        """Return the addresses of these brokers."""
        return ",".join(f"127.0.0.1:{self.ports[number - 1]}" for number in numbers)

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the leader of each partition. While a broker is cut off, the answer may be its own."""
        client = AdminClient({"bootstrap.servers": self.at(1), "log_level": 0})
        found = client.list_topics(topic, timeout=20 * PATIENCE).topics[topic].partitions
        return {number: partition.leader for number, partition in found.items()}


@pytest.fixture
async def brokers() -> AsyncIterator[Brokers]:
    brokers = Brokers()
    try:
        await brokers.start()
        yield brokers
    finally:
        for node in brokers.nodes:
            node.stop()
        await brokers.wire.cut()


def java_hash(text: str) -> int:
    """Kafka places a group and a transactional id by `String.hashCode`, without its sign."""
    value = 0
    for letter in text:
        value = (31 * value + ord(letter)) & 0xFFFFFFFF
    return value if value < 1 << 31 else ((1 << 32) - value) & 0x7FFFFFFF


def subscribed(customer: str, at_us: int, kind: str) -> Target:
    return Target("org", "sub")


def changes(state: LedgerState, count: int) -> Changes:
    start = state.position.next
    return Fold(QUICK, "d-t-0-")(state, [raw(start + n, slp(start + n)) for n in range(count)], subscribed)


def ledger(bootstrap: str, partition: int, group: str) -> Ledger:
    place = LedgerConfig({"bootstrap_servers": bootstrap}, TOPICS, "an-id", PARTITIONS, group, "meterbridge")
    return Ledger(partition, place, LedgerCache(time.monotonic), lambda: NOON)


async def count_ten(bootstrap: str, partition: int, group: str) -> int:
    """Count ten more calls; return the new position."""
    one = ledger(bootstrap, partition, group)
    state = await one.open()
    await one.commit(changes(state, 10))
    await one.close()
    return state.position.next


def place_with_other_coordinators(brokers: Brokers) -> tuple[int, str]:
    """Return a partition whose changelog the stale broker leads, and a group: neither the group nor the transactions of
    this partition are coordinated by that broker.
    """
    groups, transactions = brokers.leaders("__consumer_offsets"), brokers.leaders("__transaction_state")
    for partition, leader in brokers.leaders(TOPICS.changelog).items():
        for group in (f"meter-{n}" for n in range(50)) if leader == STALE else ():
            own = f"{group}-{TOPICS.raw}-{partition}"
            if STALE not in (groups[java_hash(group) % INTERNAL], transactions[java_hash(own) % INTERNAL]):
                return partition, group
    raise AssertionError("the stale broker leads no partition of the changelog")


async def test_a_ledger_is_not_opened_from_the_old_copy_of_a_broker_that_is_cut_off(
    brokers: Brokers, figures: Callable[..., None]
) -> None:
    everywhere, others = brokers.at(1, 2, 3), brokers.at(1, 2)
    settings = {"KAFKA_BOOTSTRAP_SERVERS": everywhere, "KAFKA_PARTITIONS": str(PARTITIONS), **REPLICATED}
    await asyncio.to_thread(create_topics, *topics_of(load_settings(settings)))
    await count_ten(everywhere, 0, "first")  # makes Kafka's own topics
    partition, group = await asyncio.to_thread(place_with_other_coordinators, brokers)
    producer = Producer({"bootstrap.servers": everywhere})
    for _ in range(30):
        producer.produce(TOPICS.raw, b"{}", partition=partition)
    await asyncio.to_thread(producer.flush, 60)
    old = await count_ten(everywhere, partition, group)
    await brokers.wire.cut()
    await soon(lambda: brokers.leaders(TOPICS.changelog)[partition] not in (STALE, -1), limit_s=60)
    assert await count_ten(others, partition, group) == old + 10
    outcomes: Counter[str | int] = Counter()
    deadline = time.monotonic() + 60 * PATIENCE
    while outcomes["ledger_behind"] < 2:  # the client asks one broker or another who leads the partition
        assert time.monotonic() < deadline, outcomes
        one = ledger(brokers.at(STALE), partition, group)
        try:
            with suppress(KafkaError):
                outcomes[(await one.open()).position.next] += 1
        except TopicProblem as problem:
            outcomes[problem.reason] += 1
        finally:
            await one.close()
        assert outcomes[old] == 0, f"the old copy was taken for the ledger: {outcomes}"
    figures(refused=outcomes["ledger_behind"])
