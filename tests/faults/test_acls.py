"""Each role works with an account that has only the rights in `connectors/kafka/acls.py`, with a broker that denies all
others: some accounts with SCRAM passwords over TLS, the others with certificates. The rights of each account are tested
on both listeners.
"""

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from connectors.config.connections import kafka_connection
from connectors.config.settings import load_settings
from connectors.kafka.acls import GROUP, OPERATOR, ROLES, TOPIC, TRANSACTIONAL_ID, Acl, acls
from connectors.kafka.client_config import librdkafka_config
from tests.faults.calls import CUSTOMERS
from tests.faults.world import COMMANDS, TOKEN, World, mapped_late, running_world
from tests.support.command import ended
from tests.support.database import until
from tests.support.eventually import PATIENCE, soon
from tests.support.kafka.secured import ADMIN, CERTIFICATE, PRINCIPALS, SCRAM, SecuredKafka

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

DEPLOYMENT = "guarded"
RUNNING = {name: words for name, words in COMMANDS.items() if not name.endswith("-2")}
MAPPED = [customer for customer in CUSTOMERS if not mapped_late(customer)]
CARD = """
id = "list"
effective_from = "2099-01-01T00:00:00Z"
currency = "USD"

[default]
markup_percent = "20"
"""
STRANGER = "stranger"
#: Roles whose processes come in by certificate; the other roles and the operator have passwords. On both sides one consumes
#: and writes in transactions, and one only writes.
BY_CERTIFICATE = ("ingress", "meter", "project")
#: The group's coordinator is still loading.
_NOT_YET = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
_LIMIT_S = 180.0


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[SecuredKafka]:
    broker = SecuredKafka(tmp_path)
    yield broker
    broker.kafka.stop()


@pytest.fixture
async def world(secured: SecuredKafka, tmp_path: Path, database: str) -> AsyncIterator[World]:
    prefix = f"g{uuid.uuid4().hex[:6]}."
    common = {"DATABASE_URL": database, "DEPLOYMENT_NAME": DEPLOYMENT}

    def account(name: str) -> Mapping[str, str]:
        """Return the account: for a process that of its role, for a command the operator's."""
        role = name.partition("-")[0]
        door = CERTIFICATE if role in BY_CERTIFICATE else SCRAM
        return secured.environ(f"meterbridge-{role if role in ROLES else OPERATOR}", door)

    administrator = {"PATH": os.environ["PATH"], "TOPIC_PREFIX": prefix, "KAFKA_PARTITIONS": "6"}
    for door, principal in PRINCIPALS.items():
        words = ("topics", "create", "--acls", "--principal", principal)
        done = await ended({**administrator, **common, **secured.environ(ADMIN, door)}, *words, limit_s=_LIMIT_S)
        assert done.code == 0, done.err
    async with running_world(
        {}, tmp_path, broker=secured.kafka, common=common, each=account, prefix=prefix, commands=RUNNING
    ) as running:
        yield running


async def test_every_role_works_with_its_own_account_and_cannot_do_another_roles_work(
    world: World, secured: SecuredKafka, database: str, tmp_path: Path
) -> None:
    await _bill(world, database)
    await _operate(world, tmp_path)
    assert not [process for process in world.processes.values() if process.deaths]
    needed = list(acls(world.topics, world.prefix, DEPLOYMENT))
    for door, role in product(PRINCIPALS, ROLES):
        kafka = librdkafka_config(kafka_connection(load_settings(secured.environ(f"meterbridge-{role}", door))))
        mine = [acl for acl in needed if acl.role == role]
        assert await asyncio.to_thread(_topics_of, kafka, world) == _meant(mine, needed, TOPIC), (door, role)
        assert await asyncio.to_thread(_groups_of, kafka, needed) == _meant(mine, needed, GROUP), (door, role)
        for owner, may in _transactions(mine, needed):
            assert await asyncio.to_thread(_may_begin, kafka, owner) is may, (door, role, owner)


async def _bill(world: World, database: str) -> None:
    """Sixty calls of one cent each, one call that can never be billed, and one without a payer."""
    calls: list[dict[str, Any]] = [
        {"id": f"call-{n}", "end_user": MAPPED[n % len(MAPPED)], "model": "m", "spend": 0.01, "total_tokens": 1}
        for n in range(60)
    ]
    calls.append({"id": "call-odd", "end_user": MAPPED[0], "model": "m", "spend": "much"})
    calls.append({"id": "call-held", "end_user": STRANGER, "model": "m", "spend": 0.01, "total_tokens": 1})
    with httpx.Client(trust_env=False, timeout=30 * PATIENCE) as http:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        post = partial(http.post, world.url("ingress") + "/webhook/litellm/usage", json=calls, headers=headers)
        assert (await asyncio.to_thread(post)).status_code == 202

        def billed_cents() -> Decimal:
            stats = json.loads(http.get(world.url("sandbox") + "/__stats").text)
            return Decimal(stats["totals"]["billed_cents"])

        await soon(lambda: billed_cents() == 60, _LIMIT_S)
    rows = "SELECT count(*) FROM llm_usage_log WHERE decision = 'billable'"
    await until(database, rows, lambda found: found >= 60, _LIMIT_S)


async def _operate(world: World, folder: Path) -> None:
    """Run an operator's commands on real topics: commands that read, that write records, and that start transactions."""
    lost = folder / "lost.jsonl"
    now = time.time()
    call = {"id": "call-lost", "end_user": MAPPED[0], "model": "m", "spend": 0.01, "startTime": now - 1, "endTime": now}
    lost.write_text(json.dumps(call) + "\n")
    card = folder / "card.toml"
    card.write_text(CARD)
    for words in (
        ("topics", "check"),
        ("held", "list"),
        ("dlq", "list"),
        ("dlq", "requeue", "--comment", "again"),
        ("audit", "verify"),
        ("explain", "--request", "call-1"),
        ("reconcile",),
        ("replay", "--from", "1h", "--to", "0s", "--target-topic", "raw"),
        ("backfill", "--source", "jsonl", "--file", str(lost)),
        ("rates", "put", str(card), "--comment", "prices"),
        ("rates", "show"),
        ("ledger", "init", "--from", "earliest"),
        ("held", "write-off", "--customer", STRANGER, "--comment", "test", "--yes"),
        ("lago", "rebill", "--dry-run"),
    ):
        done = await ended(world.environ("operator"), *words, limit_s=_LIMIT_S)
        said = done.out + done.err
        assert "uthoriz" not in said and "refuses" not in said and "Traceback" not in said, (words, said)
        # 1 of `ledger init`: every ledger is sound, so there is nothing to begin.
        assert done.code == (words[0] == "ledger"), (words, said)


def _meant(mine: list[Acl], needed: list[Acl], resource: str) -> dict[str, set[str]]:
    """Return what a role should be allowed on each resource of a kind that any role needs; Read and Write imply
    Describe.
    """
    found: dict[str, set[str]] = {acl.name: set() for acl in needed if acl.resource == resource and not acl.prefixed}
    implied = {"Read": "Describe", "Write": "Describe", "AlterConfigs": "DescribeConfigs"}
    for name, allowed in found.items():
        for acl in mine:
            if acl.resource == resource and (acl.name == name or (acl.prefixed and name.startswith(acl.name))):
                allowed.update({acl.operation, implied.get(acl.operation, acl.operation)})
    return found


def _words(operations: Any) -> set[str]:
    return {AclOperation(operation.value).name.title().replace("_", "") for operation in operations or ()}


def _topics_of(kafka: dict[str, Any], world: World) -> dict[str, set[str]]:
    """Return the operations that the broker allows an account on each topic."""
    names = world.topics.__dataclass_fields__
    wanted = TopicCollection([getattr(world.topics, name) for name in names])
    admin = AdminClient(kafka)  # its answers end with it
    result = admin.describe_topics(wanted, include_authorized_operations=True, request_timeout=30)
    return {name: _words(future.result().authorized_operations) for name, future in result.items()}


def _groups_of(kafka: dict[str, Any], needed: list[Acl]) -> dict[str, set[str]]:
    """Return the same for each consumer group; a group that may not be described may not be read."""
    admin = AdminClient(kafka)
    return {
        name: _group(admin, name) for name in {acl.name for acl in needed if acl.resource == GROUP and not acl.prefixed}
    }


def _group(admin: AdminClient, name: str) -> set[str]:
    deadline = time.monotonic() + _LIMIT_S * PATIENCE
    while True:
        [future] = admin.describe_consumer_groups(
            [name], include_authorized_operations=True, request_timeout=30
        ).values()
        try:
            return _words(future.result().authorized_operations)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                return set()
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _transactions(mine: list[Acl], needed: list[Acl]) -> Iterator[tuple[str, bool]]:
    """Yield a transactional id of each kind, and whether the role may use it."""
    for name in {acl.name for acl in needed if acl.resource == TRANSACTIONAL_ID}:
        # An id of its own: a running process is not to be fenced by the test.
        allowed = [acl for acl in mine if acl.resource == TRANSACTIONAL_ID]
        tried = name + "tried-by-a-test"
        yield tried, any(acl.prefixed and tried.startswith(acl.name) for acl in allowed)


def _may_begin(kafka: dict[str, Any], transactional_id: str) -> bool:
    producer = Producer({**kafka, "transactional.id": transactional_id})
    try:
        producer.init_transactions(30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            raise
        return False
    return True
