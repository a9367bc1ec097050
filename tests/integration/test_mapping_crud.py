"""Customer mappings are listed, ended, and changed only in the version that the caller has seen; billed usage stays
explained.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from pydantic import SecretStr

from connectors.config.settings import Settings
from schemas.customers import CustomerRecord, MappingVersion
from schemas.moments import HOUR_US, SECOND_US, to_iso
from schemas.topics import CUSTOMERS
from streams.core.mapping.set_mapping import TOO_EARLY
from tests.integration.test_mapping_api import json_of, records, refused
from tests.support.eventually import PATIENCE, within
from tests.support.kafka import Kafka
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage

DAY_US = 24 * HOUR_US


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str) -> Settings:
    return settings_for(kafka, topic_prefix, api_rate_limit=0, api_port=0, mapping_delay_seconds=1)


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with running_server(settings, ["api"]) as running:
        yield running


def with_lago(settings: Settings, lago: Lago) -> Settings:
    return settings.model_copy(update={"lago_api_url": lago.url, "lago_api_key": SecretStr(KEY)})


async def listed(server: Server, **query: Any) -> list[str]:
    """The customers of all pages."""
    found, cursor = list[str](), ""
    while True:
        page = json_of(await server.http.get("/customers/mappings", params={**query, "cursor": cursor}, headers=BEARER))
        found += [mapping["litellm_customer_id"] for mapping in page["mappings"]]
        if page["next_cursor"] is None:
            return found
        cursor = page["next_cursor"]


async def deleted(server: Server, customer: str = "customer-1", **headers: str) -> httpx.Response:
    return await server.http.delete(f"/customers/{customer}/mapping", headers={**BEARER, **headers})


async def deactivated(server: Server, customer: str = "customer-1", **body: Any) -> httpx.Response:
    return await server.http.post(f"/customers/{customer}/mapping/deactivate", json=body, headers=BEARER)


async def history(server: Server, customer: str = "customer-1") -> list[dict[str, Any]]:
    answer = await server.http.get(f"/customers/{customer}/mapping/history", headers=BEARER)
    versions: list[dict[str, Any]] = json_of(answer)["versions"]
    return versions


async def until(so: Callable[[], Awaitable[bool]], limit_s: float = 20.0) -> None:
    """Returns once the condition is true."""
    async with within(limit_s):
        while not await so():
            await asyncio.sleep(0.05)


async def is_deleted(server: Server, customer: str = "customer-1") -> bool:
    return (await server.mapping(customer)).status_code == 404


async def test_mappings_are_listed_in_order_in_pages_of_any_length(server: Server) -> None:
    names = [f"team/{number:02d}" for number in range(9)] + ["Zoë", "a", "日本"]
    for name in names:
        json_of(await server.map(name), 201)
    for limit in (1, 5, 12, 100):
        assert await listed(server, limit=limit) == sorted(names)
    assert await listed(server, prefix="team/", limit=4) == names[:9]
    assert await listed(server, prefix="nobody") == []


async def test_a_page_does_not_depend_on_mappings_that_come_and_go_before_it(server: Server) -> None:
    """A page starts after a name, not after a number of names: nothing is listed twice, and nothing left out."""
    for name in "bdfh":
        json_of(await server.map(name), 201)
    first = json_of(await server.http.get("/customers/mappings", params={"limit": 2}, headers=BEARER))
    for name in "acg":
        json_of(await server.map(name), 201)
    more = {"limit": 10, "cursor": first["next_cursor"]}
    then = json_of(await server.http.get("/customers/mappings", params=more, headers=BEARER))
    assert [mapping["litellm_customer_id"] for mapping in then["mappings"]] == ["f", "g", "h"]


async def test_mappings_are_listed_by_org_and_by_whether_they_are_active(server: Server) -> None:
    json_of(await server.map("one", org="org_1"), 201)
    json_of(await server.map("two", org="org_2"), 201)
    json_of(await server.map("three", org="org_2", is_active=False), 201)
    assert await listed(server, org="org_2") == ["three", "two"]
    assert await listed(server, active="true") == ["one", "two"]
    assert await listed(server, org="org_2", active="false") == ["three"]


async def test_a_wrong_list_request_gets_an_explanation(server: Server) -> None:
    for query in ({"limit": 0}, {"limit": 1001}, {"active": "perhaps"}, {"cursor": "§"}):
        answer = await server.http.get("/customers/mappings", params=query, headers=BEARER)
        assert [error["field"] for error in refused(answer, 422)["errors"]] == list(query)


async def test_every_version_is_shown_with_its_start_and_when_it_was_written(server: Server) -> None:
    created = json_of(await server.map(effective_from="2024-01-01"), 201)
    changed = json_of(await server.map(org="org_2"), 200)
    result = await history(server)
    assert [version["lago_customer_id"] for version in result] == ["org_1", "org_2"]
    assert [version["effective_from"] for version in result] == [created["effective_from"], changed["effective_from"]]
    assert [version["updated_at"] for version in result] == [created["updated_at"], changed["updated_at"]]
    assert refused(await server.http.get("/customers/nobody/mapping/history", headers=BEARER), 404)


async def test_usage_of_a_deactivated_mapping_is_held_from_then_on_and_every_announcement_is_withdrawn(
    server: Server,
) -> None:
    json_of(await server.map(external_subscription_id="sub"), 201)
    json_of(await server.map(org="org_2", effective_from=time.time() + 3600), 200)
    ended = json_of(await deactivated(server))
    assert (ended["is_active"], ended["held_reason"], ended["upcoming"]) == (False, "inactive", [])
    assert json_of(await deactivated(server)) == ended
    assert [version["is_active"] for version in await history(server)] == [True, False]
    assert ended["effective_from"] > ended["updated_at"]


async def test_a_mapping_can_be_deactivated_at_a_future_time_but_not_in_the_past(server: Server) -> None:
    json_of(await server.map(external_subscription_id="sub"), 201)
    assert refused(await deactivated(server, effective_from=1), 422)["reason"] == "effective_from_too_early"
    at = int(time.time()) + 3600
    ended = json_of(await deactivated(server, effective_from=at))
    now = json_of(await server.mapping())
    assert (now["is_active"], now["subscription"]) == (True, "sub")
    assert [later["effective_from"] for later in now["upcoming"]] == [ended["effective_from"]]


async def test_a_deleted_mapping_is_gone_after_the_delay_and_its_past_still_bills(server: Server) -> None:
    """Late calls go to the same org: the versions stay and are shown; the customer may be mapped again."""
    json_of(await server.map(external_subscription_id="sub", effective_from="2024-01-01"), 201)
    before = await history(server)
    result = json_of(await deleted(server))
    assert (result["deleted"], result["subscription"], result["held_reason"]) == (True, None, "no_mapping")
    await until(lambda: is_deleted(server))
    assert await listed(server) == []
    assert refused(await deleted(server), 404)["reason"] == "no_mapping"
    assert refused(await deactivated(server), 404)
    versions = await history(server)
    assert versions[0] == before[0]
    assert [version["deleted"] for version in versions] == [False, True]
    json_of(await server.map(org="org_2"), 201)
    assert json_of(await server.mapping())["lago_customer_id"] == "org_2"
    assert await listed(server) == ["customer-1"]


async def test_only_a_caller_who_has_seen_the_latest_version_may_change_it(server: Server) -> None:
    created = await server.map()
    tag = created.headers["ETag"]
    assert (await server.mapping()).headers["ETag"] == tag
    body = {"litellm_customer_id": "customer-1", "lago_customer_id": "org_2", "lago_organization_id": "tenant"}
    changed = await server.http.post("/customers/mapping", json=body, headers={**BEARER, "If-Match": tag})
    assert json_of(changed)["lago_customer_id"] == "org_2"
    assert changed.headers["ETag"] != tag
    late = await server.http.post(
        "/customers/mapping", json=body | {"lago_customer_id": "org_3"}, headers={**BEARER, "If-Match": tag}
    )
    assert refused(late, 412)["reason"] == "precondition_failed"
    assert refused(await deleted(server, **{"If-Match": tag}), 412)["reason"] == "precondition_failed"
    again = await server.http.post("/customers/mapping", json=body, headers={**BEARER, "If-Match": tag})
    assert json_of(again)["lago_customer_id"] == "org_2"
    either = f'"some-other", {changed.headers["ETag"]}'
    assert json_of(await deleted(server, **{"If-Match": either}))["deleted"]


async def test_a_request_that_must_create_does_not_change_an_existing_mapping(server: Server) -> None:
    headers = {**BEARER, "If-None-Match": "*"}
    body = {"litellm_customer_id": "customer-1", "lago_customer_id": "org_1", "lago_organization_id": "tenant"}
    assert json_of(await server.http.post("/customers/mapping", json=body, headers=headers), 201)
    for org in ("org_1", "org_2"):
        answer = await server.http.post("/customers/mapping", json=body | {"lago_customer_id": org}, headers=headers)
        assert refused(answer, 412)["reason"] == "exists_already"
    nobody = {**BEARER, "If-Match": "*"}
    answer = await server.http.post("/customers/mapping", json=body | {"litellm_customer_id": "x"}, headers=nobody)
    assert refused(answer, 412)["reason"] == "precondition_failed"


async def test_a_meaningless_precondition_is_refused(server: Server) -> None:
    json_of(await server.map(), 201)
    for headers in ({"If-Match": "abc"}, {"If-Match": ""}, {"If-None-Match": '"abc"'}):
        assert refused(await deleted(server, **headers), 400)["reason"] == "bad_precondition"


async def test_of_two_changes_of_the_same_version_one_is_refused_also_in_two_processes(settings: Settings) -> None:
    """Behind a load balancer two operators use two processes: `If-Match` works between them."""
    async with running_server(settings, ["api"]) as one, running_server(settings, ["api"]) as other:
        for number in range(6):
            customer = f"customer-{number}"
            tag = (await one.map(customer)).headers["ETag"]
            body = {"litellm_customer_id": customer, "lago_organization_id": "tenant"}
            answers = await asyncio.gather(
                *(
                    server.http.post(
                        "/customers/mapping", json=body | {"lago_customer_id": org}, headers={**BEARER, "If-Match": tag}
                    )
                    for server, org in ((one, "org_a"), (other, "org_b"))
                )
            )
            assert sorted(answer.status_code for answer in answers) == [200, 412]
            [winner] = [answer.json()["lago_customer_id"] for answer in answers if answer.status_code == 200]
            result = await history(one, customer)
            assert [version["lago_customer_id"] for version in result] == ["org_1", winner]


async def test_a_change_by_one_process_is_not_undone_by_the_next_of_another(settings: Settings) -> None:
    async with running_server(settings, ["api"]) as one, running_server(settings, ["api"]) as other:
        json_of(await one.map(), 201)
        begin = int(time.time()) + 3600
        for number in range(6):
            server = (one, other)[number % 2]
            json_of(await server.map(org=f"org_{number}", effective_from=begin + number))

        async def all_told() -> bool:
            """Each process reads what the other wrote a moment later."""
            result = await history(one)
            return [version["lago_customer_id"] for version in result] == ["org_1", *(f"org_{n}" for n in range(6))]

        await until(all_told)


async def test_a_customer_deleted_longer_ago_than_usage_is_kept_is_removed(
    kafka: Kafka, settings: Settings, topic_prefix: str
) -> None:
    """An id may identify a person; until then its record says who pays for late calls."""
    now = int(time.time()) * SECOND_US
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=3)
    for name, days in (("long-ago", 40), ("lately", 20)):
        begun, ended = now - 90 * DAY_US, now - days * DAY_US
        versions = (
            MappingVersion(begun, "org_1", "tenant"),
            MappingVersion(ended, "org_1", "tenant", is_active=False, deleted=True),
        )
        record = CustomerRecord(name, versions, begun, ended)
        stage.producer.produce(stage.topics.customers, msgspec.json.encode(record), name)
    stage.producer.flush(10 * PATIENCE)
    async with lago_sandbox() as lago, running_server(with_lago(settings, lago), ["api"]) as server:

        async def forgotten() -> bool:
            answer = await server.http.get("/customers/long-ago/mapping/history", headers=BEARER)
            return answer.status_code == 404

        await until(forgotten)
        assert len(await history(server, "lately")) == 2


async def test_a_payer_for_the_time_before_all_kept_versions_can_be_given(
    kafka: Kafka, settings: Settings, topic_prefix: str
) -> None:
    """Usage of that time that arrives now is held; so a mapping may start there, although it is in the past."""
    now = int(time.time()) * SECOND_US
    begins = [now - days * DAY_US for days in range(90, 10, -10)]
    versions = tuple(MappingVersion(at_us, f"org_{number}", "tenant") for number, at_us in enumerate(begins))
    record = CustomerRecord("customer-1", versions, begins[0] - DAY_US, begins[-1], known_from=begins[0])
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=3)
    stage.producer.produce(stage.topics.customers, msgspec.json.encode(record), "customer-1")
    stage.producer.flush(10 * PATIENCE)
    async with running_server(settings, ["api"]) as server:
        then = to_iso(begins[0] - 10 * DAY_US)
        result = json_of(await server.map(org="org_then", effective_from=then))
        assert (result["lago_customer_id"], result["held_reason"]) == ("org_then", "no_subscription")
        assert json_of(await server.map(org="org_then", effective_from=then))["lago_customer_id"] == "org_then"
        assert refused(await server.map(org="org_other", effective_from=then), 422)["reason"] == TOO_EARLY
        assert refused(await server.map(org="org_x", effective_from=to_iso(begins[0])), 422)["reason"] == TOO_EARLY
        assert [one["lago_customer_id"] for one in await history(server)][:2] == ["org_then", "org_0"]
        assert json_of(await server.mapping())["lago_customer_id"] == "org_7", "who pays now is another question"


async def test_every_change_has_a_line_in_the_audit_log_with_the_old_and_the_new_value(
    kafka: Kafka, settings: Settings, topic_prefix: str
) -> None:
    async with running_server(settings, ["api"]) as server:
        json_of(await server.map(), 201)
        json_of(await server.map(), 200)
        json_of(await deactivated(server))
        json_of(await deleted(server))
    lines = Stage(kafka.bootstrap, topic_prefix, partitions=3).values(topic_prefix + "billing.audit")
    assert len(lines) == 3, "what changes nothing leaves no line"
    assert {line["actor"] for line in lines} == {"master key"}
    assert len(records(settings, CUSTOMERS)) == 3
