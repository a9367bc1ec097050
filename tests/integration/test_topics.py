"""The topics of the catalogue on a real broker: created once, and checked with clear messages."""

import asyncio

import pytest
import structlog
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from connectors.config.connections import kafka_connection
from connectors.config.settings import Settings
from connectors.doctor.kafka_rules import is_named, judge_topics
from connectors.kafka.admin import check_topics, create_topics, topic_ids
from schemas.errors import TopicProblem, Unavailable
from schemas.topics import CATALOGUE, CUSTOMERS, ORGS, RAW, RECEIPTS, RETRY, RETRY_TIERS
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE, eventually
from tests.support.kafka import Kafka, MavenKafka
from tests.support.ports import free_port
from tests.support.stage import Stage
from tests.support.values import topics_of


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str) -> Settings:
    return Settings(kafka_bootstrap_servers=kafka.bootstrap, kafka_partitions=3, topic_prefix=topic_prefix)


@pytest.fixture
def admin(kafka: Kafka) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap})


def _make(admin: AdminClient, name: str, partitions: int, config: dict[str, str] | None = None) -> None:
    admin.create_topics([NewTopic(name, partitions, 1, config=config or {})])[name].result()
    eventually(lambda: name in admin.list_topics(timeout=10 * PATIENCE).topics)


def _drop(admin: AdminClient, name: str) -> None:
    admin.delete_topics([name], operation_timeout=10 * PATIENCE)[name].result()
    eventually(lambda: name not in admin.list_topics(timeout=10 * PATIENCE).topics)


def test_creating_twice_creates_once_and_the_check_has_no_finding(settings: Settings) -> None:
    names = tuple(settings.topic_prefix + topic.name for topic in CATALOGUE)
    first = create_topics(*topics_of(settings))
    assert (first.created, first.existed) == (names, ())
    assert check_topics(*topics_of(settings)) == []
    second = create_topics(*topics_of(settings))
    assert (second.created, second.existed) == ((), names)
    assert check_topics(*topics_of(settings)) == []


def test_partitions_are_those_of_the_catalogue(settings: Settings, admin: AdminClient) -> None:
    create_topics(*topics_of(settings))
    found = admin.list_topics(timeout=10 * PATIENCE).topics
    counts = [len(found[settings.topic_prefix + topic.name].partitions) for topic in (RAW, CUSTOMERS, RETRY, ORGS)]
    assert counts == [3, 3, RETRY_TIERS, 1]


def test_before_anything_is_created_every_topic_is_missing(settings: Settings, broker: MavenKafka) -> None:
    """Where others have topics, these are named instead (test_start_without_topics.py), so this Kafka is empty."""
    alone = settings.model_copy(update={"kafka_bootstrap_servers": broker.bootstrap})
    complaints = check_topics(*topics_of(alone))
    assert len([one for one in complaints if " is missing: " in one]) == len(CATALOGUE)
    assert complaints[0] == f"Topic {settings.topic_prefix}{RAW.name} is missing: run `meterbridge topics create`."


def test_a_wrong_topic_is_explained_in_a_sentence_and_create_does_not_repair_it(
    settings: Settings, admin: AdminClient
) -> None:
    """A partition count cannot simply change: this moves keys away from their ledgers."""
    _make(admin, settings.topic_prefix + RAW.name, 4, RAW.config)
    _make(admin, settings.topic_prefix + CUSTOMERS.name, 3, {**CUSTOMERS.config, "cleanup.policy": "delete"})
    assert len(create_topics(*topics_of(settings)).existed) == 2
    regrown, not_compacted = check_topics(*topics_of(settings))
    assert f"{RAW.name} has 4 partitions where 3 are expected" in regrown
    assert f"{CUSTOMERS.name} has cleanup.policy=delete where compact is expected" in not_compacted


def test_a_topic_with_the_brokers_timestamps_is_refused(settings: Settings, admin: AdminClient) -> None:
    """The timestamp of a raw record is its receipt time: the ledger's clock."""
    create_topics(*topics_of(settings))
    resource = ConfigResource(
        ResourceType.TOPIC,
        settings.topic_prefix + RAW.name,
        incremental_configs=[
            ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
        ],
    )
    admin.incremental_alter_configs([resource])[resource].result()
    (complaint,) = eventually(lambda: check_topics(*topics_of(settings)))
    assert "message.timestamp.type=LogAppendTime where CreateTime is expected" in complaint


def _alter(admin: AdminClient, name: str, setting: str, value: str) -> None:
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result()


@pytest.mark.parametrize("words", ["worker --only meter", "worker --only sink", "worker --only project", "serve"])
async def test_no_role_starts_while_a_topic_may_lose_usage(
    kafka: Kafka, topic_prefix: str, admin: AdminClient, words: str
) -> None:
    """A bound in bytes silently deletes unread calls on the busiest day."""
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    await asyncio.to_thread(_alter, admin, stage.topics.raw, "retention.bytes", "1048576")
    await asyncio.to_thread(eventually, lambda: check_topics(*topics_of(stage.settings), to_start=True))
    needed = {
        "DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "WEBHOOK_TOKEN": "t" * 40,
        "METRICS_PORT": "0",
        "PORT": "0",
    }
    done = await meterbridge(stage, *words.split(), **needed)
    assert done.code not in (0, 70), done.err
    assert f"{stage.topics.raw} has retention.bytes=1048576 where -1 is expected" in " ".join(done.err.split())


async def test_a_harmless_wrong_setting_is_logged_and_the_role_starts(
    kafka: Kafka, topic_prefix: str, admin: AdminClient, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    await asyncio.to_thread(_alter, admin, stage.topics.raw, "max.message.bytes", "1000000")
    await asyncio.to_thread(eventually, lambda: check_topics(*topics_of(stage.settings)))
    with structlog.testing.capture_logs() as logs:
        assert check_topics(*topics_of(stage.settings), to_start=True) == []
    assert [(one["event"], one["setting"]) for one in logs] == [("topic_setting", "max.message.bytes")]


async def test_the_doctor_reports_wrong_settings_of_topics(kafka: Kafka, topic_prefix: str, admin: AdminClient) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    assert await judge_topics(stage.settings) == ()
    await asyncio.to_thread(_alter, admin, stage.topics.raw, "max.message.bytes", "1000000")
    await asyncio.to_thread(_alter, admin, stage.topics.events, "retention.ms", "60000")
    await asyncio.to_thread(eventually, lambda: len(check_topics(*topics_of(stage.settings))) == 2)
    assert {one.code for one in await judge_topics(stage.settings)} == {"topic_setting", "topic_loses_money"}
    with pytest.raises(Unavailable):
        await judge_topics(Settings(kafka_bootstrap_servers=f"127.0.0.1:{free_port()}"))
    assert is_named(Settings(kafka_bootstrap_servers="x:1")) and not is_named(Settings())


def test_a_recreated_topic_has_another_id(settings: Settings, admin: AdminClient) -> None:
    name = settings.topic_prefix + RECEIPTS.name
    _make(admin, name, 1)
    before = topic_ids(kafka_connection(settings), [name])
    assert topic_ids(kafka_connection(settings), [name]) == before
    _drop(admin, name)
    _make(admin, name, 1)
    after = topic_ids(kafka_connection(settings), [name])
    assert before.keys() == after.keys() == {name}
    assert before[name] != after[name]
    assert len(after[name]) == 22


def test_a_missing_topic_has_no_id(settings: Settings) -> None:
    with pytest.raises(TopicProblem, match="topic_missing"):
        topic_ids(kafka_connection(settings), [settings.topic_prefix + "none"])


def test_more_replicas_than_brokers_are_refused_by_name(settings: Settings) -> None:
    with pytest.raises(TopicProblem, match=r"topic_refused: .*litellm\.usage\.raw"):
        create_topics(*topics_of(settings.model_copy(update={"kafka_replication_factor": 9})))


def test_a_broker_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="kafka_unavailable"):
        check_topics(*topics_of(Settings(kafka_bootstrap_servers=f"127.0.0.1:{free_port()}")), limit_s=1)


async def test_the_commands_exit_code_shows_a_wrong_topic(kafka: Kafka, topic_prefix: str, admin: AdminClient) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    assert (await meterbridge(stage, "topics", "check")).code == 0
    await asyncio.to_thread(_drop, admin, topic_prefix + ORGS.name)
    done = await meterbridge(stage, "topics", "check")
    assert (done.code, f"Topic {topic_prefix}{ORGS.name} is missing" in done.out + done.err) == (1, True)
    created = await meterbridge(stage, "topics", "create", "--json")
    assert (created.code, created.json["created"]) == (0, [topic_prefix + ORGS.name]), created.err
    assert len(created.json["existed"]) == len(CATALOGUE) - 1
    assert (await meterbridge(stage, "topics", "check")).code == 0


async def test_create_exits_with_1_if_topics_have_another_number_of_partitions(kafka: Kafka, topic_prefix: str) -> None:
    """Processes that start after it, in compose or after a hook, would only report the same."""
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    done = await meterbridge(stage, "topics", "create", KAFKA_PARTITIONS="3")
    assert (done.code, "2 partitions where 3 are expected" in done.err) == (1, True), done.err
    assert (await meterbridge(stage, "topics", "create")).code == 0
