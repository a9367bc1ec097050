"""A new Kafka that was never used: as soon as the server is ready, the first mapping is accepted."""

import asyncio
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from connectors.processes.server import API, PARTS, serving
from tests.support.eventually import PATIENCE, within
from tests.support.http_client import http_client
from tests.support.kafka import MavenKafka
from tests.support.server import BEARER, settings_for

pytestmark = pytest.mark.faults

STATE = "__transaction_state"


@pytest.fixture
def fresh() -> Iterator[MavenKafka]:
    broker = MavenKafka()
    yield broker
    broker.stop()


@pytest.mark.parametrize("parts", [PARTS, (API,)], ids=["all", "api"])
async def test_the_first_mapping_can_be_set_as_soon_as_the_server_is_ready(
    fresh: MavenKafka, parts: tuple[str, ...]
) -> None:
    """In an earlier version the first change made Kafka create the coordinator's log while the caller waited: 503
    `kafka_unavailable`.
    """
    admin = AdminClient({"bootstrap.servers": fresh.bootstrap})
    assert STATE not in admin.list_topics(timeout=10 * PATIENCE).topics
    settings = settings_for(fresh, "fresh.").model_copy(update={"api_port": 0} if parts == (API,) else {})
    async with (
        serving(settings, parts) as served,
        http_client(base_url=f"http://127.0.0.1:{served.ports[API]}", timeout=30 * PATIENCE, trust_env=False) as http,
    ):
        reasons = set()
        async with within(60):
            while (ready := await http.get("/health/ready")).status_code != 200:
                reasons.add(ready.json()["reason"])
                await asyncio.sleep(0.01)
        assert reasons <= {"topics_unchecked", "coordinator_awaited"}
        assert STATE in admin.list_topics(timeout=10 * PATIENCE).topics
        body = {"litellm_customer_id": "acme", "lago_customer_id": "org", "lago_organization_id": "tenant"}
        answer = await http.post("/customers/mapping", json=body, headers=BEARER)
        assert answer.status_code == 201, answer.text
