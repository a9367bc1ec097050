"""A body with an unknown member is refused and the member named: a misspelt member must not count as omitted."""

from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry

from connectors.config.settings import Settings
from connectors.http.endpoint import Endpoint
from connectors.http.problem import Problem
from connectors.http.request_models import parsed
from connectors.kafka.checked_producer import CheckedProducer
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from connectors.lago.client import LagoClient
from connectors.operations.import_kinds import MappingRows
from connectors.processes.management_api import Management
from connectors.telemetry.metrics import Metrics

MISSPELT = b'{"efective_from": "2026-11-01"}'


@pytest.fixture
async def endpoints() -> AsyncIterator[list[Endpoint]]:
    """The whole management API, without any other service."""
    producer = KafkaProducer(producer_config("127.0.0.1:1", answer_within_s=1))
    try:
        async with httpx.AsyncClient() as http:
            lago = LagoClient(http, "http://127.0.0.1:1", "")
            yield Management(
                Settings(), CheckedProducer(producer), {"": lago}, Metrics(CollectorRegistry(), "0")
            ).endpoints()
    finally:
        await producer.close(0.1)


async def test_every_body_of_the_api_refuses_an_unknown_member(endpoints: list[Endpoint]) -> None:
    bodies = {f"{one.method} {one.path}": one.body for one in endpoints if one.body is not None}
    assert {"POST /customers/mapping", "POST /api/customers"} <= set(bodies)
    for name, body in bodies.items():
        with pytest.raises(Problem) as refused:
            parsed(body, MISSPELT)
        result = {error["field"]: error["message"] for error in refused.value.members["errors"]}  # type: ignore[attr-defined]
        assert refused.value.status == 422, name
        assert "efective_from" in result, name
        assert "efective_from" in refused.value.detail, name


def test_a_row_of_an_import_may_have_further_columns() -> None:
    """Exports of other systems have their own columns; docs/mapping.md says so."""
    row = b'{"litellm_customer_id":"c","lago_customer_id":"o","lago_organization_id":"t","note":"x"}'
    assert parsed(MappingRows.model, row).litellm_customer_id == "c"  # type: ignore[attr-defined]
