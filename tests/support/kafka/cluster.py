"""Three brokers on this machine: each record has three copies, and two must have it (`min.insync.replicas`)."""

import time
import uuid
from collections.abc import Mapping
from contextlib import suppress

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.eventually import PATIENCE
from tests.support.kafka.maven import MavenKafka
from tests.support.kafka.node import VERSION, member
from tests.support.ports import free_port

NODES = 3
#: The variable of the product that gives its topics three copies.
REPLICATED: Mapping[str, str] = {"KAFKA_REPLICATION_FACTOR": str(NODES)}


class KafkaCluster:
    """Brokers that are controllers, too; one of three may be killed, and the other two go on.

    Attributes:
        bootstrap: all brokers, separated by commas.
        nodes: each broker; `nodes[0].kill()` kills it.
    """

    def __init__(self) -> None:
        ports, controllers = ([free_port() for _ in range(NODES)] for _ in range(2))
        cluster = str(uuid.uuid4())
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in ports)
        self.nodes: list[MavenKafka] = []
        try:
            for number, port in enumerate(ports):
                node = MavenKafka(member(number, ports, controllers), port=port, cluster=cluster)
                self.nodes.append(node)
            for node in self.nodes:
                node.wait()
        except BaseException:
            self.stop()
            raise

    def whole(self, limit_s: float = 120.0) -> None:
        """Return once every partition has its three copies in step: only then may another broker be killed.

        Raises:
            RuntimeError: some still lag after `limit_s`.
        """
        admin, deadline = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}), time.monotonic() + limit_s
        while True:
            behind = 0
            with suppress(KafkaException):
                behind = 1 + sum(
                    len(partition.isrs) < len(partition.replicas)
                    for topic in admin.list_topics(timeout=10 * PATIENCE).topics.values()
                    for partition in topic.partitions.values()
                )
            if behind == 1:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{behind - 1} partitions lack a copy after {limit_s:.0f} s")
            time.sleep(0.2)

    def describe(self) -> str:
        return f"{NODES} real brokers of Kafka {VERSION} from Maven at {self.bootstrap}"

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        for node in self.nodes:
            node.restart()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
