"""The examples of bodies in the OpenAPI document fit their schemas, and a webhook bills the calls that its example shows."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import jsonschema
import msgspec
import pytest

from connectors.api.openapi.examples import EXAMPLES
from connectors.api.openapi.usage_bodies import USAGE_BODIES
from connectors.ingest.routes import ROUTES
from connectors.ingest.store import ElementStore, StoreOutcome
from schemas.normalised_call import Usage
from schemas.wire import Call, RawRecord
from streams.core.metering.normalise import normalise
from tests.contract.compatibility.breaks import Json
from tests.contract.compatibility.current import openapi
from tests.unit.ingest.test_envelopes import BoundedTopic

#: A value that an example had where the author of a field named none.
FILLERS = {"text", "string", "example"}
#: Bodies that their sender describes.
OTHERS = {"/webhooks/lago", "/webhooks/stripe"}


@pytest.fixture(scope="module")
def document() -> Json:
    return openapi()


def contents(document: Json) -> list[tuple[str, str, Json]]:
    return [
        (path, kind, content)
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
    ]


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts(inner)]
    return [value] if isinstance(value, str) else []


def test_each_example_fits_its_schema_and_has_no_placeholder(document: Json) -> None:
    found = contents(document)
    assert len(found) > 20
    for path, kind, content in found:
        assert content["example"], path
        jsonschema.validate(content["example"], {**content["schema"], "components": document["components"]})
        assert not FILLERS.intersection(texts(content["example"])), (path, kind)


def test_each_operation_that_takes_a_body_describes_it(document: Json) -> None:
    """An operation without a body needs no description: its path says what it does."""
    without = {
        path
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in ("post", "put", "patch") and "requestBody" not in operation
    }
    assert without == OTHERS


def test_each_example_belongs_to_a_body(document: Json) -> None:
    names = {content["schema"].get("$ref", "").rpartition("/")[2] for _, _, content in contents(document)}
    assert names - {""} == set(EXAMPLES)


def stored_calls(body: Any, shape: str) -> tuple[StoreOutcome, list[Usage]]:
    """What the ingress stores of a body, and the calls as the meter reads them."""
    kept = BoundedTopic()
    store = ElementStore(kept, "raw", "rejected", ("end_user",), lambda: 1_798_761_700_000_000)  # 2027-01-01 00:01:40
    outcome = asyncio.run(store.keep(json.dumps(body).encode(), shape))
    raw = [(key, value) for topic, key, value, _ in kept.records if topic == "raw"]
    read = [normalise(msgspec.json.decode(value, type=RawRecord), key or "", Decimal("1e-12")) for key, value in raw]
    return outcome, read


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_webhook_bills_the_calls_of_its_example(route: Any) -> None:
    _, body = USAGE_BODIES[route.path]
    [content] = body["content"].values()
    outcome, calls = stored_calls(content["example"], route.shape)
    assert (outcome.accepted, outcome.rejected) == (len(calls), [])
    assert len(calls) == (2 if route.path == "/webhooks/litellm/batch" else 1)
    first = calls[0]
    assert (first.customer_id, first.model, first.cost) == ("acme", "gpt-4o", Decimal("0.0123"))
    assert (first.tokens_input, first.tokens_output, first.total_tokens) == (100, 20, 120)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_call_without_its_id_is_refused_as_in_the_schema(route: Any) -> None:
    _, body = USAGE_BODIES[route.path]
    [content] = body["content"].values()
    without = json.dumps(content["example"])
    for name in ("id", "litellm_call_id", "transaction_id"):
        without = without.replace(f'"{name}":', '"unknown":')
    outcome, calls = stored_calls(json.loads(without), route.shape)
    assert not calls and outcome.rejected


def test_the_documented_fields_of_a_call_are_read() -> None:
    _, body = USAGE_BODIES["/webhooks/litellm"]
    [one, _several] = body["content"]["application/json"]["schema"]["anyOf"]
    assert set(one["properties"]) <= set(Call.__struct_fields__)
