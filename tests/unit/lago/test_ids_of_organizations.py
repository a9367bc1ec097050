"""The client of a further Lago organisation: Lago reads external ids, and the caller reads the keys of orgs."""

import inspect
from collections.abc import Iterator
from typing import Any, Final

import httpx
import msgspec
import pytest

from connectors.lago import requests
from connectors.lago.client import LagoClient, LagoIntegrationError
from connectors.lago.requests import (
    ChangePreview,
    NewCustomer,
    NewSubscription,
    PreviewedChange,
    PreviewOf,
    SubscriptionChange,
)
from connectors.lago.responses import Customer, Payer
from tests.support.lago_bodies import METRIC, plan

KEY: Final = "eu::acme"
#: The values of parameters; another parameter of a customer's id gets `KEY`, any other text "x", a number 1.
VALUES: Final[dict[str, Any]] = {
    "new_customer": NewCustomer(external_id=KEY),
    "new_subscription": NewSubscription(external_id="sub", external_customer_id=KEY, plan_code="x"),
    "preview": ChangePreview(
        customer=PreviewOf(external_id=KEY), subscriptions=PreviewedChange(external_ids=("sub",), plan_code="x")
    ),
    "change": SubscriptionChange(name="x"),
    "new_metric": METRIC,
    "new_plan": plan("x", 5),
    "new_endpoint": requests.NewWebhookEndpoint(webhook_url="http://x", signature_algo="hmac"),
    "body": b"{}",
    "take": lambda _event: None,
}
CUSTOMER: Final = {"external_id": "acme"}
SUBSCRIPTION: Final = {"external_id": "x", "external_customer_id": "acme", "status": "active", "plan_code": "x"}
INVOICE: Final = {"lago_id": "x", "customer": CUSTOMER}
#: An object under every key that a response can have.
ANSWER: Final[dict[str, Any]] = {
    "customer": CUSTOMER,
    "customers": [CUSTOMER],
    "subscription": SUBSCRIPTION,
    "subscriptions": [SUBSCRIPTION],
    "invoice": INVOICE,
    "invoices": [INVOICE],
    "meta": {"total_pages": 1, "total_count": 1},
}
METHODS: Final = [name for name, _ in inspect.getmembers(LagoClient, inspect.iscoroutinefunction) if name[0] != "_"]


def _argument(method: str, parameter: inspect.Parameter) -> Any:
    of_customer = "customer" in method or method in {"portal_url", "checkout_url"}
    if parameter.name == "external_customer_id" or (parameter.name == "external_id" and of_customer):
        return KEY
    return VALUES.get(parameter.name, 1 if parameter.annotation is int else "x")


def _structs(value: Any) -> Iterator[Any]:
    """Yield `value` and what it contains."""
    yield value
    if isinstance(value, list | tuple):
        members = list(value)
    else:
        names = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", ())
        members = [getattr(value, name) for name in names]
    for member in members:
        yield from _structs(member)


@pytest.mark.parametrize("method", METHODS)
async def test_lago_never_reads_the_key_of_an_org_and_the_caller_never_its_external_id(method: str) -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(str(request.url) + request.content.decode())
        return httpx.Response(200, json=ANSWER)

    work = getattr(LagoClient, method)
    given = {
        name: _argument(method, parameter)
        for name, parameter in list(inspect.signature(work).parameters.items())[1:]
        if parameter.default is inspect.Parameter.empty or name in {"external_customer_id", "external_id"}
    }
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        lago = LagoClient(http, "http://lago:3000", "key", organization="eu")
        try:
            result = await getattr(lago, method)(**given)
        except LagoIntegrationError:  # the general answer is not this method's; what it sent counts
            result = None
    assert sent
    for text in sent:
        assert "::" not in text
        assert "%3A%3A" not in text.upper()
    for found in _structs(result):
        if isinstance(found, Customer | Payer):
            assert found.external_id == KEY
        assert getattr(found, "external_customer_id", KEY) == KEY


def test_every_request_that_names_a_customer_is_tried() -> None:
    naming = {
        kind
        for kind in vars(requests).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and "external_customer_id" in kind.__struct_fields__
    }
    assert naming <= {type(value) for value in VALUES.values()}
