"""Each role's process works with an account that may do what `meterbridge topics acls` says, on a broker that denies the rest."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from connectors.kafka.acls import GROUP, OPERATOR, ROLES, TOPIC, Acl, acls
from schemas.topics import TopicNames
from tests.faults.calls import CUSTOMERS
from tests.faults.world import PARTITIONS, TOKEN, World, mapped_late, running_world
from tests.support.database import until
from tests.support.eventually import soon
from tests.support.kafka import MavenKafka
from tests.support.ports import free_port

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

PASSWORD = "a-password-of-a-role"
DEPLOYMENT = "guarded"
_RESOURCES = {TOPIC: ResourceType.TOPIC, GROUP: ResourceType.GROUP}


class Guarded:
    """A broker with two doors: PLAINTEXT for whoever made it, and one where each role shows its account."""

    def __init__(self) -> None:
        self.port, plain, controller = free_port(), free_port(), free_port()
        users = " ".join(f'user_{role}="{PASSWORD}"' for role in ROLES)
        module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        settings = {
            "listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{self.port},"
            f"CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{module} {users};",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        self.kafka = MavenKafka(settings, port=plain)

    def environ(self, name: str) -> Mapping[str, str]:
        """Of a process: its account, and the door to show it at."""
        role = name.partition("-")[0]
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.port}",
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_USERNAME": role if role in ROLES else OPERATOR,
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "DEPLOYMENT_NAME": DEPLOYMENT,
        }

    def client(self, role: str) -> dict[str, Any]:
        """librdkafka's options of a role's account."""
        return {
            "bootstrap.servers": f"127.0.0.1:{self.port}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": role,
            "sasl.password": PASSWORD,
        }

    def allow(self, found: Iterator[Acl]) -> None:
        """Add the lists, as `kafka-acls.sh` would."""
        bindings = [_binding(acl) for acl in found]
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        for done in admin.create_acls(bindings).values():
            done.result(30)


def _binding(acl: Acl) -> AclBinding:
    words = {"DescribeConfigs": "DESCRIBE_CONFIGS", "AlterConfigs": "ALTER_CONFIGS"}
    return AclBinding(
        _RESOURCES.get(acl.resource, ResourceType.TRANSACTIONAL_ID),
        acl.name,
        ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL,
        f"User:{acl.role}",
        "*",
        AclOperation[words.get(acl.operation, acl.operation.upper())],
        AclPermissionType.ALLOW,
    )


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    broker = Guarded()
    yield broker
    broker.kafka.stop()


@pytest.fixture
async def world(guarded: Guarded, tmp_path: Path, database: str) -> AsyncIterator[World]:
    prefix = f"g{uuid.uuid4().hex[:6]}."
    guarded.allow(acls(TopicNames.with_prefix(prefix), prefix, DEPLOYMENT))
    common = {"DATABASE_URL": database}
    async with running_world(
        {}, tmp_path, broker=guarded.kafka, common=common, each=guarded.environ, prefix=prefix
    ) as running:
        yield running


def _may_write(guarded: Guarded, role: str, topic: str) -> bool:
    told: list[KafkaError | None] = []
    producer = Producer({**guarded.client(role), "message.timeout.ms": 10_000})
    producer.produce(topic, b"x", on_delivery=lambda error, _: told.append(error))
    producer.flush(15)
    assert told, "the broker did not answer"
    if told[0] is not None:
        assert told[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, told[0]
    return told[0] is None


def _may_read(guarded: Guarded, role: str, topic: str) -> bool:
    """Whether a record of the topic comes; it has some."""
    consumer = Consumer({**guarded.client(role), "group.id": "anybody", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    try:
        for _ in range(20):
            if (found := consumer.poll(1)) is None:
                continue
            error = found.error()
            if error is None or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return error is None
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise
    finally:
        consumer.close()
    return False


async def test_every_role_does_its_work_with_its_own_account_and_can_do_no_others(
    world: World, guarded: Guarded, database: str
) -> None:
    mapped = [customer for customer in CUSTOMERS if not mapped_late(customer)]
    calls = [
        {"id": f"call-{n}", "end_user": mapped[n % len(mapped)], "model": "m", "spend": 0.01, "total_tokens": 1}
        for n in range(60)
    ]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(trust_env=False, timeout=30) as http:
        post = partial(http.post, world.url("ingress") + "/webhook/litellm/usage", json=calls, headers=headers)
        assert (await asyncio.to_thread(post)).status_code == 202

        def billed_cents() -> Decimal:
            stats = json.loads(http.get(world.url("sandbox") + "/__stats").text)
            return Decimal(stats["totals"]["billed_cents"])

        await soon(lambda: billed_cents() == 60, 60)
    await until(
        database, "SELECT count(*) FROM llm_usage_log WHERE decision = 'billable'", lambda found: found == 60, 60
    )
    assert not [process for process in world.processes.values() if process.deaths]
    topics = world.topics
    for role, topic in [
        ("ingress", topics.events),
        ("sink", topics.raw),
        ("meter", topics.customers),
        ("api", topics.events),
    ]:
        assert not await asyncio.to_thread(_may_write, guarded, role, topic), (role, topic)
    for role, topic in [("ingress", topics.raw), ("sink", topics.raw), ("meter", topics.receipts)]:
        assert not await asyncio.to_thread(_may_read, guarded, role, topic), (role, topic)
    assert await asyncio.to_thread(_may_read, guarded, "project", topics.raw)
    assert await asyncio.to_thread(_may_write, guarded, "ingress", topics.rejected)
