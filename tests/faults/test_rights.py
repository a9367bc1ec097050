"""`topics create --acls` and `doctor` with a broker with an authorizer, with an administrator's and the operator's
account.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.config.connections import kafka_connection
from connectors.config.settings import Settings, load_settings
from connectors.doctor.rights_rules import judge_rights
from connectors.kafka.acls import CLUSTER, acls
from connectors.kafka.rights import Right, rights_of
from connectors.kafka.rights_on_broker import create_rights, remove_rights, stored_rights
from connectors.litellm.recommended import working_yaml
from schemas.errors import TopicProblem
from schemas.topics import CATALOGUE, TopicNames
from tests.support.command import Ended, ended
from tests.support.kafka import Kafka
from tests.support.kafka.secured import ADMIN, PRINCIPALS, SCRAM, SecuredKafka

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

PREFIX, DEPLOYMENT, PATTERN = "r.", "guarded", PRINCIPALS[SCRAM]
NEEDED = rights_of(acls(TopicNames.with_prefix(PREFIX), PREFIX, DEPLOYMENT), PATTERN)
METER = "User:meterbridge-meter"
_LIMIT_S = 180.0


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    broker = SecuredKafka(tmp_path_factory.mktemp("keys"))
    yield broker
    broker.kafka.stop()


def settings(secured: SecuredKafka, account: str) -> Settings:
    names = {"TOPIC_PREFIX": PREFIX, "DEPLOYMENT_NAME": DEPLOYMENT, "KAFKA_PARTITIONS": "2"}
    return load_settings({**secured.environ(account), **names})


async def run(secured: SecuredKafka, account: str, *words: str) -> Ended:
    names = {"TOPIC_PREFIX": PREFIX, "DEPLOYMENT_NAME": DEPLOYMENT, "KAFKA_PARTITIONS": "2", "LOG_LEVEL": "error"}
    keys = {"WEBHOOK_TOKEN": "a-token-of-thirty-two-characters", "LAGO_API_KEY": "any"}
    environ = {"PATH": os.environ["PATH"], **keys, **names, **secured.environ(account)}
    return await ended(environ, *words, limit_s=_LIMIT_S)


@pytest.mark.xdist_group("rights")
async def test_acls_are_created_once_and_additional_ones_are_reported_and_removed_on_demand(
    secured: SecuredKafka,
) -> None:
    kafka = kafka_connection(settings(secured, ADMIN))
    shown = await run(secured, ADMIN, "topics", "create", "--acls", "--dry-run")
    assert shown.code == 0, shown.err
    assert shown.out.startswith(f"{len(CATALOGUE)} topics would be created.")
    assert f"{len(set(NEEDED))} rights would be created, 0 existed." in shown.out
    line = f"--add --allow-principal {METER} --operation Read --group {PREFIX}{DEPLOYMENT}-meter"
    assert line in shown.out.splitlines()
    assert stored_rights(kafka) == set()
    created = (await run(secured, ADMIN, "topics", "create", "--acls", "--json")).json
    assert len(created["created"]) == len(CATALOGUE)
    assert (len(created["rights"]["missing"]), created["rights"]["existing"]) == (len(set(NEEDED)), [])
    assert stored_rights(kafka) == set(NEEDED)
    odd = {
        Right(METER, "topic", "r.", "Delete", prefixed=True),
        Right("User:meterbridge-sink", CLUSTER, "kafka-cluster", "Create", denied=True, host="10.0.0.1"),
    }
    stranger = Right("User:stranger", "topic", "r.litellm.usage.raw", "All")
    create_rights(kafka, {*odd, stranger})
    again = await run(secured, ADMIN, "topics", "create", "--acls")
    assert f"0 rights created, {len(set(NEEDED))} existed." in again.out
    assert f"{len(odd)} rights of these principals that no role of this deployment needs; --remove-extra" in again.out
    line = f"--remove --allow-principal {METER} --operation Delete --topic r. --resource-pattern-type prefixed"
    assert line in again.out.splitlines()
    assert stored_rights(kafka) == {*NEEDED, *odd, stranger}, "nothing is removed unasked"
    assert (await run(secured, ADMIN, "topics", "create", "--acls", "--remove-extra")).code == 0
    assert stored_rights(kafka) == {*NEEDED, stranger}


@pytest.mark.xdist_group("rights")
async def test_only_an_administrator_changes_acls_and_only_with_an_authorizer(
    secured: SecuredKafka, kafka: Kafka
) -> None:
    create_rights(kafka_connection(settings(secured, ADMIN)), NEEDED)
    assert (await run(secured, ADMIN, "topics", "create")).code == 0
    operator = settings(secured, "meterbridge-operator")
    assert stored_rights(kafka_connection(operator)) >= set(NEEDED)
    with pytest.raises(TopicProblem, match=r"may not change access-control lists.*right to Alter"):
        create_rights(kafka_connection(operator), {Right(METER, "topic", "r.", "All", prefixed=True)})
    result = await run(secured, "meterbridge-meter", "topics", "create", "--acls")
    assert (result.code, "may not read access-control lists" in result.err) == (1, True), result.err
    plain = load_settings({"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "TOPIC_PREFIX": PREFIX})
    with pytest.raises(TopicProblem, match="Kafka has no authorizer"):
        create_rights(kafka_connection(plain), NEEDED)
    assert await judge_rights(plain, PATTERN) is None


@pytest.mark.xdist_group("rights")
async def test_the_doctor_names_a_removed_right_and_an_additional_one(
    secured: SecuredKafka,
) -> None:
    administrator = kafka_connection(settings(secured, ADMIN))
    create_rights(administrator, NEEDED)
    operator = settings(secured, "meterbridge-operator")
    assert await judge_rights(operator, PATTERN) == ()
    topics = TopicNames.with_prefix(PREFIX)
    for taken, sentence in (
        (Right(METER, "topic", topics.events, "Write"), f"{METER} may not Write on topic {topics.events}."),
        (Right(METER, "group", "r.guarded-meter", "Read"), f"{METER} may not Read on group r.guarded-meter."),
        (
            Right("User:meterbridge-sink", "transactional-id", "r.guarded-sink-", "Write", prefixed=True),
            "User:meterbridge-sink may not Write on every transactional-id that begins with r.guarded-sink-.",
        ),
    ):
        remove_rights(administrator, [taken])
        found = await judge_rights(operator, PATTERN) or ()
        assert [(one.code, one.sentence) for one in found] == [("kafka_right_missing", sentence)]
        create_rights(administrator, [taken])
    more = Right(METER, "topic", topics.customers, "Write")
    create_rights(administrator, [more])
    [finding] = await judge_rights(operator, PATTERN) or ()
    assert finding.code == "kafka_right_not_needed"
    assert finding.sentence == f"{METER} may Write on topic {topics.customers}."
    remove_rights(administrator, [more])
    [unread] = await judge_rights(settings(secured, "meterbridge-meter"), PATTERN) or ()
    assert unread.code == "kafka_rights_unread"


@pytest.mark.xdist_group("rights")
async def test_the_doctor_exits_with_1_for_a_missing_right(secured: SecuredKafka, tmp_path: Path) -> None:
    administrator, taken = kafka_connection(settings(secured, ADMIN)), Right(METER, "topic", "r.billing.rates", "Read")
    create_rights(administrator, NEEDED)
    assert (await run(secured, ADMIN, "topics", "create")).code == 0
    remove_rights(administrator, [taken])
    config = tmp_path / "config.yaml"
    config.write_text(working_yaml())
    result = await run(secured, "meterbridge-operator", "doctor", "--config", str(config), "--no-lago", "--json")
    assert result.code == 1, result.err
    missing = [one["sentence"] for one in result.json["findings"] if one["code"] == "kafka_right_missing"]
    assert missing == [f"{METER} may not Read on topic r.billing.rates."]
    lost = [one["code"] for one in result.json["findings"] if one["severity"].startswith("money")]
    assert lost == ["kafka_right_missing"], "it alone makes the exit code 1"
    create_rights(administrator, [taken])
