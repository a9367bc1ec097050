"""`meterbridge audit verify` with real Kafka and Postgres: lines of the api and of commands form one hash chain, which
it verifies.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from connectors.config.connections import deployment_of
from connectors.config.settings import Settings
from connectors.operations.audit_record import audited
from connectors.operations.sender import CommandProducer, Outgoing
from tests.support.command import meterbridge
from tests.support.database import migrated_database, projector_parts, rows, until
from tests.support.eventually import within
from tests.support.kafka import Kafka
from tests.support.server import BEARER, running_server, settings_for
from tests.support.stage import Stage
from tests.unit.access.test_audit_chain import log

MAPPING = {"lago_customer_id": "org_1", "lago_organization_id": "tenant"}


def settings_of(stage: Stage, kafka: Kafka, topic_prefix: str, **more: Any) -> Settings:
    return settings_for(kafka, topic_prefix, kafka_partitions=stage.settings.kafka_partitions, **more)


async def test_lines_of_servers_and_of_commands_form_one_chain(stage: Stage, kafka: Kafka, topic_prefix: str) -> None:
    """Two servers and a command write at the same time, and none waits for another."""
    settings = settings_of(stage, kafka, topic_prefix, api_rate_limit=0, mapping_delay_seconds=0)
    deployment = deployment_of(settings)
    async with running_server(settings, ("api",)) as one, running_server(settings, ("api",)) as other:
        for round_ in range(3):
            asked = [
                server.http.post("/customers/mapping", json=MAPPING | {"litellm_customer_id": name}, headers=BEARER)
                for server, name in ((one, f"a{round_}"), (other, f"b{round_}"), (one, f"c{round_}"))
            ]
            command = asyncio.to_thread(
                audited, deployment, CommandProducer(deployment.kafka), "replay", {"round": str(round_)}
            )
            answers, _ = await asyncio.gather(asyncio.gather(*asked), command)
            assert [answer.status_code for answer in answers] == [201] * 3
        await one.http.delete("/customers/a0/mapping", headers={"Authorization": "Bearer wrong"})
        async with within(10):
            while len(stage.values(stage.topics.audit)) < 13:
                await asyncio.sleep(0.1)
    result = await meterbridge(stage, "audit", "verify", "--json")
    assert (result.code, result.json["broken"], result.json["unchained"]) == (0, None, 0), result
    lines = result.json["lines"]  # a change that met another one has a line of each attempt
    assert lines >= 13
    assert result.json["head"].startswith(f"{lines}:")
    again = await meterbridge(stage, "audit", "verify", "--head", result.json["head"])
    assert again.code == 0, again
    longer = f"{lines + 1}:{result.json['head'].partition(':')[2]}"
    assert (await meterbridge(stage, "audit", "verify", "--head", longer)).code == 1


def changed(values: list[bytes]) -> list[bytes]:
    return [values[0], values[1].replace(b'"ada"', b'"eve"'), *values[2:]]


def deleted(values: list[bytes]) -> list[bytes]:
    return [values[0], *values[2:]]


def inserted(values: list[bytes]) -> list[bytes]:
    return [*values[:1], log(9)[8], *values[1:]]


def reordered(values: list[bytes]) -> list[bytes]:
    return [values[0], values[2], values[1], *values[3:]]


@pytest.mark.parametrize(
    ("damage", "kind", "named"),
    [
        (changed, "changed", "id1"),
        (deleted, "missing", "id1"),
        (inserted, "missing", "id7"),
        (reordered, "reordered", "id1"),
    ],
)
async def test_a_manipulation_of_the_topic_is_named_and_changes_the_exit_code(
    stage: Stage, damage: Callable[[list[bytes]], list[bytes]], kind: str, named: str
) -> None:
    values = damage(log(5))
    CommandProducer(stage.connection).send(Outgoing(stage.topics.audit, b"key", value) for value in values)
    result = await meterbridge(stage, "audit", "verify", "--json")
    assert (result.code, result.json["broken"]["kind"], result.json["broken"]["audit_id"]) == (1, kind, named)
    sentence = await meterbridge(stage, "audit", "verify")
    assert (sentence.code, f"{kind}: line {named} at offset " in sentence.out) == (1, True)


async def test_a_row_that_differs_from_its_line_is_named(
    stage: Stage, postgres_url: str, kafka: Kafka, topic_prefix: str
) -> None:
    deployment = deployment_of(settings_of(stage, kafka, topic_prefix))
    sender = CommandProducer(deployment.kafka)
    for number in range(4):
        audited(deployment, sender, "replay", {"b": str(number), "a\0": "x"}, reason="ünd 1.0", count=number)
    async with (
        migrated_database(postgres_url) as url,
        projector_parts(stage, url) as parts,
        stage.running("project", parts),
    ):
        await until(url, "SELECT count(*) FROM audit_log", lambda count: count == 4)

        async def broken_line() -> Any:
            found = await meterbridge(stage, "audit", "verify", "--json", DATABASE_URL=url)
            assert found.code == (0 if found.json["row"] is None else 1), found
            assert found.json["broken"] is None
            return found.json

        sound = await broken_line()
        assert (sound["row"], sound["rows"]) == (None, 4)
        [(second,)] = await rows(url, "SELECT audit_id FROM audit_log WHERE count = 1")
        await rows(url, "UPDATE audit_log SET actor = 'eve' WHERE count = 1")
        assert (await broken_line())["row"] | {"detail": ""} == {
            "kind": "row_changed",
            "audit_id": second,
            "detail": "",
        }
        await rows(url, "DELETE FROM audit_log WHERE count = 1")
        assert (await broken_line())["row"] | {"detail": ""} == {
            "kind": "row_missing",
            "audit_id": second,
            "detail": "",
        }
        forged = "INSERT INTO audit_log (audit_id, at, actor, action, target, reason, count, cost_usd)"
        await rows(url, f"{forged} VALUES ('forged', now(), 'ada', 'replay', '{{}}', '', 0, 0)")
        assert (await broken_line())["row"]["audit_id"] == "forged"
