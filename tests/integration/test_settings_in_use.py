"""Settings reach the place they are about: a server with another value than the default does another thing."""

import pytest

from connectors.lago import orgs
from tests.integration.test_mapping_api import said
from tests.support.kafka import Kafka
from tests.support.sandbox import KEY, lago_sandbox
from tests.support.server import BEARER, running_server, settings_for
from tests.support.stage import Stage

CALL = {"id": "r-1", "end_user": "eve", "team_id": "team-7", "user_id": "u", "model": "m", "spend": 0.5}
TOKEN = {"Authorization": "Bearer hook"}


@pytest.mark.parametrize(
    ("fields", "customer", "kind"), [(("team", "end_user"), "team-7", "team"), (("user",), "u", "user")]
)
async def test_the_customer_is_looked_for_where_customer_id_fields_says(
    kafka: Kafka, topic_prefix: str, fields: tuple[str, ...], customer: str, kind: str
) -> None:
    settings = settings_for(kafka, topic_prefix, webhook_token=("hook",), customer_id_fields=fields)
    async with running_server(settings) as server:
        said(await server.http.post("/webhook/litellm/usage", json=CALL, headers=TOKEN), 202)
    stage = Stage(kafka.bootstrap, topic_prefix, settings.kafka_partitions)
    [record] = stage.read(stage.topics.raw)
    assert record.key().decode() == customer
    assert stage.values(stage.topics.raw)[0]["id_kind"] == kind


async def test_orgs_are_told_by_org_id_prefixes_and_subscribed_by_subscription_id_template(
    kafka: Kafka, topic_prefix: str
) -> None:
    async with lago_sandbox() as lago:
        await lago.plan("starter", 1900)
        settings = settings_for(
            kafka,
            topic_prefix,
            lago_api_url=lago.url,
            lago_api_key=KEY,
            org_id_prefixes=("team-", "acct-"),
            subscription_id_template="sub_{org_id}",
        )
        async with running_server(settings) as server:
            assert [orgs.is_org_customer(one) for one in ("org_1", "team-1", "acct-1")] == [False, True, True]
            path = "/api/v1/billing/org/organizations/team-1/setup"
            made = said(await server.http.post(path, json={"plan_code": "starter"}, headers=BEARER), 201)
        assert made["subscription"]["external_id"] == "sub_team-1"
        listed = (await lago.get("/subscriptions")).json()["subscriptions"]
        assert [one["external_id"] for one in listed] == ["sub_team-1"]
