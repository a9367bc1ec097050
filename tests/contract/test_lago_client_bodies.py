"""Our client's requests to Lago equal those of Lago's own client."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from lago_python_client.models import BillableMetric as SdkMetric
from lago_python_client.models import Customer as SdkCustomer
from lago_python_client.models import Event as SdkEvent
from lago_python_client.models import InvoicePreview as SdkPreview
from lago_python_client.models import Plan as SdkPlan
from lago_python_client.models import Subscription as SdkSubscription
from lago_python_client.models import WebhookEndpoint as SdkWebhookEndpoint

from connectors.lago import requests
from connectors.lago.requests import (
    ChangePreview,
    NewCharge,
    NewCustomer,
    NewWebhookEndpoint,
    Note,
    PaymentBy,
    PreviewedChange,
    PreviewOf,
    SubscriptionChange,
)
from schemas.records import LagoEvent
from tests.support.lago_bodies import METRIC, plan, subscription

SENT: list[tuple[type[Any], msgspec.Struct]] = [
    (
        SdkCustomer,
        NewCustomer(
            **dict.fromkeys(set(NewCustomer.__struct_fields__) - {"net_payment_term", "billing_configuration"}, "x")
            | {"metadata": (Note("plan", "pro", "1a", display_in_invoice=True),)},
            net_payment_term=30,
            billing_configuration=PaymentBy("stripe", "main", "cus_1", sync=True, sync_with_provider=True),
        ),
    ),
    (
        SdkSubscription,
        subscription(
            name="n", billing_time="anniversary", subscription_at="2025-01-01", ending_at="2026-01-01T00:00:00Z"
        ),
    ),
    (SdkSubscription, SubscriptionChange(name="n", ending_at=None)),
    (SdkMetric, msgspec.structs.replace(METRIC, description="d")),
    (SdkPlan, plan("llm", 5, NewCharge(billable_metric_id="1a", charge_model="standard", properties={"amount": "1"}))),
    (
        SdkPreview,
        ChangePreview(
            customer=PreviewOf(external_id="org_1"),
            subscriptions=PreviewedChange(external_ids=("sub_1",), plan_code="pro"),
        ),
    ),
    (SdkWebhookEndpoint, NewWebhookEndpoint(webhook_url="u", signature_algo="hmac", name="n", event_types=("a.b",))),
    (SdkEvent, LagoEvent("t", "sub_1", "ai_usage", "1795176000.000", "0.0145", {"unit": "7", "org_id": "org_1"})),
]


@pytest.mark.parametrize(("model", "sent"), SENT, ids=lambda one: getattr(one, "__name__", ""))
def test_every_body_is_valid_for_lagos_own_client(model: type[Any], sent: msgspec.Struct) -> None:
    """It knows all our field names, and every value passes through its types unchanged."""
    body = msgspec.json.decode(msgspec.json.encode(sent))
    assert _kept(model.parse_obj(body).dict(), body) == body


def test_every_kind_of_request_is_compared() -> None:
    kinds = {kind for kind in vars(requests).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)}
    known = kinds - {msgspec.Struct} | {LagoEvent}
    tried = set[type]()

    def walk(value: object) -> None:
        if isinstance(value, msgspec.Struct):
            tried.add(type(value))
            walk([getattr(value, name) for name in value.__struct_fields__])
        elif isinstance(value, list | tuple):
            for one in value:
                walk(one)

    walk([sent for _, sent in SENT])
    assert known - tried == set()


def _kept(parsed: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name in body:
        assert name in parsed, name
        value = parsed[name]
        value = value.get("__root__", value) if isinstance(value, dict) else value
        if isinstance(value, list) and isinstance(body[name], list):
            kept[name] = [
                _kept(one, of) if isinstance(of, dict) else one for one, of in zip(value, body[name], strict=True)
            ]
        else:
            kept[name] = _kept(value, body[name]) if isinstance(value, dict) and name != "properties" else value
    return kept
