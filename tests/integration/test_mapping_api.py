"""Customer mappings over HTTP: written to the compacted topic, and read back by the process that wrote."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from unicodedata import normalize
from urllib.parse import quote

import httpx
import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from connectors.config.settings import Settings
from schemas.customers import CustomerRecord, OrgRecord
from schemas.topics import CUSTOMERS, ORGS, RAW, Topic
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.server import BEARER, Server, running_server, settings_for


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str) -> Settings:
    return settings_for(kafka, topic_prefix)


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with running_server(settings) as running:
        yield running


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox() as running:
        await running.usage_plan()
        yield running


def records(settings: Settings, topic: Topic) -> list[tuple[str, bytes]]:
    """Key and value of every record in the topic."""
    return [(key, value) for key, value, _ in placed(settings, topic)]


def placed(settings: Settings, topic: Topic) -> list[tuple[str, bytes, int]]:
    """Key, value and partition of every committed record; the end of a partition shows that there are no more."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": "reads",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    count = 1 if topic is ORGS else settings.kafka_partitions
    found: list[tuple[str, bytes, int]] = []
    try:
        consumer.assign([TopicPartition(settings.topic_prefix + topic.name, number, 0) for number in range(count)])
        ended = 0
        while ended < count:
            [message] = consumer.consume(1, timeout=10)
            if message.error() is None:
                found.append((message.key().decode(), message.value(), message.partition()))
            else:
                ended += 1
    finally:
        consumer.close()
    return found


def json_of(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """The body of an answer with this status."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    return json_of(answer, status)


async def test_a_new_mapping_is_created_and_can_be_read_at_once(server: Server, settings: Settings) -> None:
    created = json_of(await server.map(billing_plan="ai_pro"), 201)
    assert {name: created[name] for name in ("litellm_customer_id", "lago_customer_id", "lago_organization_id")} == {
        "litellm_customer_id": "customer-1",
        "lago_customer_id": "org_1",
        "lago_organization_id": "tenant",
    }
    assert (created["billing_plan"], created["is_active"], created["external_subscription_id"]) == (
        "ai_pro",
        True,
        None,
    )
    assert created["effective_from"].endswith(".000000Z")
    assert created["created_at"] == created["updated_at"]
    assert json_of(await server.mapping()) == created
    [(key, value)] = records(settings, CUSTOMERS)
    record = msgspec.json.decode(value, type=CustomerRecord)
    assert (key, record.litellm_customer_id) == ("customer-1", "customer-1")
    assert [version.lago_customer_id for version in record.versions] == ["org_1"]


async def test_defaults_are_the_basic_plan_and_active(server: Server) -> None:
    created = json_of(await server.map(), 201)
    assert (created["billing_plan"], created["is_active"]) == ("ai_basic", True)


async def test_a_change_is_announced_and_applies_after_the_delay(server: Server) -> None:
    before = json_of(await server.map(), 201)
    changed = json_of(await server.map(org="org_2"), 200)
    assert (changed["lago_customer_id"], changed["created_at"]) == ("org_2", before["created_at"])
    assert changed["updated_at"] > before["updated_at"]
    now = json_of(await server.mapping())
    assert now["lago_customer_id"] == "org_1"
    assert [later["lago_customer_id"] for later in now["upcoming"]] == ["org_2"]
    assert now["upcoming"][0]["effective_from"] == changed["effective_from"]


async def test_posting_the_same_mapping_again_writes_nothing(server: Server, settings: Settings) -> None:
    created = json_of(await server.map(), 201)
    assert json_of(await server.map(), 200) == created
    assert len(records(settings, CUSTOMERS)) == 1


async def test_changes_of_one_customer_do_not_overwrite_each_other(server: Server, settings: Settings) -> None:
    json_of(await server.map(), 201)
    begin = int(time.time()) + 3600
    answers = await asyncio.gather(
        *(server.map(org=f"org_{number}", effective_from=begin + number) for number in range(2, 22))
    )
    assert {answer.status_code for answer in answers} == {200}
    upcoming = json_of(await server.mapping())["upcoming"]
    assert [later["lago_customer_id"] for later in upcoming] == [f"org_{number}" for number in range(2, 22)]
    assert len(records(settings, CUSTOMERS)) == 21


async def test_mappings_survive_a_restart(settings: Settings) -> None:
    async with running_server(settings) as server:
        created = json_of(await server.map(), 201)
    async with running_server(settings, ["api"]) as server:
        assert json_of(await server.mapping()) == created


async def test_without_the_master_key_nothing_is_shown_or_changed(server: Server, settings: Settings) -> None:
    body = {"litellm_customer_id": "c", "lago_customer_id": "o", "lago_organization_id": "t"}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sk-master"}):
        posted = await server.http.post("/customers/mapping", json=body, headers=headers)
        assert refused(posted, 401)["reason"] == "unknown_token"
        assert posted.headers["www-authenticate"] == "Bearer"
        refused(await server.http.get("/customers/c/mapping", headers=headers), 401)
    assert records(settings, CUSTOMERS) == []


async def test_if_no_master_key_is_configured_every_token_is_wrong(kafka: Kafka, topic_prefix: str) -> None:
    async with running_server(settings_for(kafka, topic_prefix, litellm_master_key=None)) as server:
        for token in ("x", "None", "sk-master"):
            answer = await server.http.get("/customers/c/mapping", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401


async def test_an_unknown_customer_is_404(server: Server) -> None:
    assert refused(await server.mapping("nobody"), 404)["reason"] == "no_mapping"


WRONG: tuple[tuple[str, object], ...] = (
    ("litellm_customer_id", ""),
    ("litellm_customer_id", " \x00 "),
    ("litellm_customer_id", "x" * 256),
    ("litellm_customer_id", 7),
    ("lago_customer_id", None),
    ("lago_customer_id", "a\nb"),
    ("lago_organization_id", "  "),
    ("billing_plan", []),
    ("is_active", "perhaps"),
    ("external_subscription_id", "y" * 256),
    ("id_kind", "nickname"),
    ("effective_from", "tomorrow"),
    ("effective_from", True),
    ("effective_from", -1),
    ("effective_from", 1e300),
)


async def test_a_wrong_field_is_named_and_its_value_is_not(server: Server, settings: Settings) -> None:
    for field, value in WRONG:
        problem = refused(await server.map(**{field: value}), 422)
        assert [error["field"] for error in problem["errors"]] == [field]
        assert field in problem["detail"]
        if isinstance(value, str) and len(value) > 4:
            assert value not in str(problem)
    assert records(settings, CUSTOMERS) == []


async def test_all_wrong_fields_are_named_together_and_a_body_that_is_no_json_is_400(server: Server) -> None:
    answer = await server.http.post("/customers/mapping", content=b"{}", headers=BEARER)
    named = {error["field"] for error in refused(answer, 422)["errors"]}
    assert named == {"litellm_customer_id", "lago_customer_id", "lago_organization_id"}
    for body in (b"", b"{", b'{"a": NaN', b'{"litellm_customer_id": "\\ud800"}', b"\xff"):
        answer = await server.http.post("/customers/mapping", content=body, headers=BEARER)
        assert refused(answer, 400)["reason"] == "not_json"
    assert refused(await server.http.post("/customers/mapping", content=b"[]", headers=BEARER), 422)


async def test_a_start_in_the_past_is_accepted_for_the_first_mapping_and_then_refused(server: Server) -> None:
    created = json_of(await server.map(effective_from="2024-02-29T12:00:00.7+01:00"), 201)
    assert created["effective_from"] == "2024-02-29T11:00:00.000000Z"
    assert json_of(await server.map(effective_from=1_709_204_400), 200) == created
    problem = refused(await server.map(org="org_2", effective_from=time.time() + 1), 422)
    assert problem["reason"] == "effective_from_too_early"


async def test_any_customer_id_is_found_under_its_normalised_form(server: Server) -> None:
    for customer in ("team/a", "Jürgen & Söhne?#%", "日本", normalize("NFD", "Zoë"), " padded ", "k" * 255):
        created = json_of(await server.map(customer), 201)
        assert created["litellm_customer_id"] == normalize("NFC", customer).strip()
        for spelling in (customer, created["litellm_customer_id"]):
            assert json_of(await server.mapping(quote(spelling, safe=""))) == created


async def test_a_mapping_is_on_the_partition_where_the_meter_reads_it(server: Server, settings: Settings) -> None:
    """Every client uses the same partitioner: a ledger follows only the customers of its own partition."""
    for number in range(12):
        json_of(await server.map(f"customer-{number}"), 201)
        body = f'{{"id":"{number}","user":"customer-{number}","spend":1,"total_tokens":1}}'
        json_of(await server.http.post("/webhook/litellm/usage", content=body), 202)
    places: dict[str, list[int]] = {}
    for topic in (CUSTOMERS, RAW):
        for key, _, partition in placed(settings, topic):
            places.setdefault(key, []).append(partition)
    assert len(places) == 12
    assert all(len(found) == 2 and len(set(found)) == 1 for found in places.values())


async def test_the_subscription_comes_from_lago_if_none_is_named(kafka: Kafka, topic_prefix: str, lago: Lago) -> None:
    settings = settings_for(kafka, topic_prefix, lago_api_url=lago.url)
    await lago.save("/customers", "customer", external_id="org_1", name="Acme", currency="USD")
    await lago.subscribe("sub_1", "org_1")
    async with running_server(settings) as server:
        created = json_of(await server.map(), 201)
        assert (created["subscription"], created["held_reason"]) == ("sub_1", None)
        again = json_of(await server.map("customer-2"), 201)
        assert again["subscription"] == "sub_1"
    [(key, value)] = records(settings, ORGS)
    org = msgspec.json.decode(value, type=OrgRecord)
    assert (key, org.name, org.currency) == ("org_1", "Acme", "USD")
    assert [period.external_id for period in org.periods] == ["sub_1"]


async def test_usage_of_a_customer_without_a_subscription_is_held_until_lago_has_one(
    kafka: Kafka, topic_prefix: str, lago: Lago
) -> None:
    settings = settings_for(kafka, topic_prefix, lago_api_url=lago.url)
    async with running_server(settings, learn_every_s=0.2) as server:
        held = json_of(await server.map(), 201)
        assert (held["subscription"], held["held_reason"]) == (None, "no_subscription")
        await lago.save("/customers", "customer", external_id="org_1", name="Acme", currency="USD")
        await lago.subscribe("sub_late", "org_1")
        deadline = time.monotonic() + 10 * PATIENCE
        while (found := json_of(await server.mapping()))["subscription"] is None:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)
        assert (found["subscription"], found["held_reason"]) == ("sub_late", None)


async def test_a_named_subscription_is_looked_up_and_its_period_recorded(
    kafka: Kafka, topic_prefix: str, lago: Lago
) -> None:
    settings = settings_for(kafka, topic_prefix, lago_api_url=lago.url)
    await lago.subscribe("sub_1", "org_1")
    async with running_server(settings) as server:
        created = json_of(await server.map(external_subscription_id="sub_1"), 201)
        assert (created["external_subscription_id"], created["subscription"]) == ("sub_1", "sub_1")
        await lago.subscribe("sub_2", "org_1")
        other = json_of(await server.map("of-sub_2", external_subscription_id="sub_2"), 201)
        assert (other["subscription"], other["held_reason"]) == ("sub_2", None)
        await lago.subscribe("theirs", "org_2")
        for name, why in (("not-there", "unknown_subscription"), ("theirs", "foreign_subscription")):
            held = json_of(await server.map(f"of-{name}", external_subscription_id=name), 201)
            assert (held["subscription"], held["held_reason"]) == (None, why)
        assert json_of(await server.mapping("of-not-there"))["held_reason"] == "unknown_subscription"
    orgs = [msgspec.json.decode(value, type=OrgRecord) for _, value in records(settings, ORGS)]
    learnt = [[period.external_id for period in org.periods] for org in orgs]
    assert learnt == [["sub_1"], ["sub_1", "sub_2"], ["sub_1", "sub_2"], ["sub_1", "sub_2"]]
    assert [period.charged for period in orgs[-1].periods] == [("ai_usage",)] * 2
    assert orgs[-1].unusable == {"not-there": "unknown_subscription", "theirs": "foreign_subscription"}


async def test_a_mapping_is_accepted_while_lago_is_unavailable(server: Server) -> None:
    created = json_of(await server.map(), 201)
    assert (created["subscription"], created["held_reason"], created["warning"]) == (None, "no_subscription", None)


async def test_the_answer_to_an_inactive_mapping_says_that_usage_is_held(server: Server) -> None:
    created = json_of(await server.map(is_active=False, external_subscription_id="sub_1"), 201)
    assert (created["is_active"], created["subscription"], created["held_reason"]) == (False, None, "inactive")
