"""What every test broker has in common: its settings, and what "it answers" means."""

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.ports import free_port

VERSION = "4.1.0"


def single_node(port: int, data: str, overrides: Mapping[str, str] | None, listen: str = "127.0.0.1") -> dict[str, str]:
    """Server properties of one combined KRaft node; small internal topics, so that it starts fast."""
    controller_port = free_port()
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://{listen}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "log.segment.delete.delay.ms": "1000",
        # Recorded calls keep their times: retention must not take them away in the middle of a test.
        "log.retention.check.interval.ms": "86400000",
        # An idle controller writes a record twice a second: half of an idle broker's CPU time.
        "metadata.max.idle.interval.ms": "5000",
        # A killed broker comes back only when its old registration has expired.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "1000",
        **(overrides or {}),
    }


def member(number: int, ports: Sequence[int], controllers: Sequence[int]) -> dict[str, str]:
    """Return what makes a node the member `number` (from 0) of a cluster: internal topics have a copy on each, and two
    must have a record.
    """
    copies, needed = str(len(ports)), "2"
    return {
        "node.id": str(number + 1),
        "controller.quorum.voters": ",".join(f"{n + 1}@127.0.0.1:{port}" for n, port in enumerate(controllers)),
        "listeners": f"PLAINTEXT://127.0.0.1:{ports[number]},CONTROLLER://127.0.0.1:{controllers[number]}",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": needed,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": needed,
        "min.insync.replicas": needed,
        "controller.quorum.election.timeout.ms": "1000",
        "controller.quorum.fetch.timeout.ms": "2000",
    }


def wait_until_it_answers(bootstrap: str, alive: Callable[[], bool], why: Callable[[], str], limit_s: float) -> None:
    """Return once the broker lists its topics.

    Raises:
        RuntimeError: it ended, or did not answer within `limit_s`; with what `why()` knows.
    """
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if not alive():
            raise RuntimeError(f"Kafka ended while starting:\n{why()}")
        try:
            client.list_topics(timeout=0.9)
        except KafkaException:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"Kafka at {bootstrap} gave no answer within {limit_s:.0f} s. {why()}".rstrip())
