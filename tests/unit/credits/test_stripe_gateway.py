"""Requests to Stripe, against a server on a loopback port that answers as Stripe's API reference says."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from pydantic import SecretStr

from connectors.config.settings import Settings
from connectors.credits.stripe_gateway import Order, Session, StripeGateway
from connectors.processes.api_databases import api_databases
from connectors.processes.credits_api import CreditsApi
from connectors.telemetry.metrics import Metrics
from schemas.errors import ConfigurationError, MeterbridgeError, Rejected, Unavailable
from tests.support.ports import free_port
from tests.support.usage_api import serving

ORDER = Order("p-1", "Starter", 1000, "usd", "https://shop.example/ok", "https://shop.example/no")
KEY = "sk_test_" + "of_the_tests"


@dataclass
class Stripe:
    """`error`: status, type and code of the answers."""

    url: str = ""
    asked: list[tuple[str, str, dict[str, list[str]], dict[str, str]]] = field(default_factory=list)
    error: tuple[int, str, str] | None = None

    async def answer(self, request: web.Request) -> web.Response:
        result = parse_qs(await request.text())
        self.asked.append((request.method, request.path, result, dict(request.headers)))
        if self.error is not None:
            status, kind, code = self.error
            return web.json_response({"error": {"type": kind, "code": code, "message": f"no: {KEY}"}}, status=status)
        if request.path == "/v1/customers":
            return web.json_response({"id": "cus_1", "object": "customer"})
        return web.json_response(
            {"id": "cs_test_1", "object": "checkout.session", "url": "https://checkout.stripe.com/1", "livemode": False}
        )


@pytest.fixture
async def stripe() -> AsyncIterator[Stripe]:
    found, app = Stripe(), web.Application()
    app.router.add_route("*", "/{tail:.*}", found.answer)
    async with serving(app) as url:
        found.url = url
        yield found


@pytest.fixture
async def gateway(stripe: Stripe) -> AsyncIterator[StripeGateway]:
    created = StripeGateway(KEY, stripe.url, "meterbridge")
    yield created
    await created.close()


async def test_a_session_is_created_as_stripe_documents_it(gateway: StripeGateway, stripe: Stripe) -> None:
    assert await gateway.session(ORDER, "cus_1") == Session("cs_test_1", "https://checkout.stripe.com/1", live=False)
    [(method, path, result, headers)] = stripe.asked
    assert (method, path) == ("POST", "/v1/checkout/sessions")
    assert {name: value for name, [value] in result.items()} == {
        "mode": "payment",
        "customer": "cus_1",
        "client_reference_id": "p-1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "1000",
        "line_items[0][price_data][product_data][name]": "Starter",
        "line_items[0][quantity]": "1",
        "metadata[meterbridge_purchase]": "p-1",
        "payment_intent_data[metadata][meterbridge_purchase]": "p-1",
        "success_url": "https://shop.example/ok",
        "cancel_url": "https://shop.example/no",
    }
    assert (headers["Idempotency-Key"], headers["Authorization"]) == ("11:meterbridge:7:session:3:p-1", f"Bearer {KEY}")


async def test_a_customer_at_stripe_has_only_the_name_of_its_account(gateway: StripeGateway, stripe: Stripe) -> None:
    assert await gateway.customer("user:ada") == "cus_1"
    [(_, path, result, headers)] = stripe.asked
    assert (path, result) == (
        "/v1/customers",
        {"metadata[meterbridge_account]": ["user:ada"], "description": ["user:ada"]},
    )
    assert headers["Idempotency-Key"] == "11:meterbridge:8:customer:8:user:ada"
    assert "platform" not in headers["X-Stripe-Client-User-Agent"], "nothing about this machine"


async def test_a_session_is_looked_up_by_its_id(gateway: StripeGateway, stripe: Stripe) -> None:
    assert (await gateway.existing("cs_test_1")).session_id == "cs_test_1"
    assert [(method, path) for method, path, *_ in stripe.asked] == [("GET", "/v1/checkout/sessions/cs_test_1")]


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        ((401, "invalid_request_error", "api_key_expired"), ConfigurationError, "STRIPE_API_KEY"),
        ((403, "invalid_request_error", "more_permissions_required"), ConfigurationError, "STRIPE_API_KEY"),
        ((400, "invalid_request_error", "parameter_missing"), Rejected, "stripe_refused"),
        ((400, "idempotency_error", "idempotency_error"), Rejected, "stripe_refused"),
        ((409, "invalid_request_error", "idempotency_key_in_use"), Unavailable, "stripe_away"),
        ((429, "invalid_request_error", "rate_limit"), Unavailable, "stripe_away"),
        ((500, "api_error", "internal"), Unavailable, "stripe_away"),
    ],
)
async def test_every_stripe_error_is_mapped_to_a_decision(
    gateway: StripeGateway,
    stripe: Stripe,
    answer: tuple[int, str, str],
    error: type[MeterbridgeError],
    reason: str,
) -> None:
    stripe.error = answer
    with pytest.raises(error) as raised:
        await gateway.session(ORDER, "cus_1")
    assert raised.value.reason == reason
    assert KEY not in str(raised.value), "Stripe's messages are not passed on"


async def test_a_stripe_that_does_not_answer_may_be_tried_again() -> None:
    gateway = StripeGateway(KEY, f"http://127.0.0.1:{free_port()}", "meterbridge")
    with pytest.raises(Unavailable, match="stripe_away"):
        await gateway.customer("user:ada")
    await gateway.close()


async def test_without_a_key_no_credits_are_sold() -> None:
    from prometheus_client import CollectorRegistry

    settings = Settings(database_url=SecretStr("postgresql://127.0.0.1:1/x"))
    metrics = Metrics(CollectorRegistry(), "0")
    parts: Any = CreditsApi(settings, metrics, api_databases(settings, metrics))
    with pytest.raises(ConfigurationError, match="STRIPE_API_KEY is not set"):
        parts._purchases()
    async with parts.open():
        assert len(parts.endpoints()) == 9
