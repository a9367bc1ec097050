"""`make stripe-trial`: credits are bought through Stripe's mock server, and its own objects come back as signed webhooks.

The last line begins with `CREDITED ONCE` or `FAILED`; the exit code says the same. 2: Go is missing, so nothing was tried.
"""

import asyncio
import os
import sys
from typing import Any

import httpx
import pytest
import stripe

from connectors.credits.stripe_events import read_event
from connectors.credits.stripe_gateway import Order, StripeGateway
from schemas.errors import Rejected
from streams.core.payments.payment import Dispute, Payment
from tests.stripe_mock.server import NoGoError, stripe_mock
from tests.support.credit_api import CreditApi, credit_api
from tests.support.credits import balanced
from tests.support.database import migrated_database
from tests.support.postgres import start_postgres
from tests.support.stripe_events import SECRET, body_of, event

KEY = "sk_test_" + "123"
ORDER = Order("p-1", "Starter", 1000, "usd", "https://shop.example/ok", "https://shop.example/no")


async def sessions_and_customers(url: str) -> None:
    """Stripe's document knows every parameter that we send, and its answers have every field that we read."""
    gateway = StripeGateway(KEY, url, "trial")
    customer = await gateway.customer("user:ada")
    assert customer.startswith("cus_"), customer
    session = await gateway.session(ORDER, customer)
    assert session.session_id.startswith("cs_") and not session.live, session
    assert (await gateway.existing(session.session_id)).session_id == session.session_id
    with pytest.raises(Rejected, match="stripe_refused"):
        await gateway.session(ORDER._replace(price="dear"), customer)  # type: ignore[arg-type]
    await gateway.close()


async def shapes(url: str) -> dict[str, dict[str, Any]]:
    """Stripe's complete example of each object that our webhook reads."""
    paths = {"session": "checkout/sessions/cs_test_1", "charge": "charges/ch_1", "dispute": "disputes/dp_1"}
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as http:
        found = {name: (await http.get(f"{url}/v1/{path}")).json() for name, path in paths.items()}
    session = read_event(body_of(event("checkout.session.completed", found["session"] | {"payment_status": "paid"})))
    assert session.fact == Payment(found["session"]["amount_total"] or 0, found["session"]["currency"] or "")
    charge = read_event(body_of(event("charge.refunded", found["charge"] | {"payment_intent": "pi_1"})))
    assert charge.fact == Payment(refunded=found["charge"]["amount_refunded"])
    result = found["dispute"]
    dispute = read_event(body_of(event("charge.dispute.created", result | {"payment_intent": "pi_1"})))
    assert dispute.fact == Payment(
        disputes={result["id"]: Dispute(result["amount"], result["currency"], result["status"])}
    )
    return found


async def signed_by_the_library(api: CreditApi, stripe_event: dict[str, Any]) -> str:
    """Send an event with a signature that Stripe's library created."""
    body = body_of(stripe_event)
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET)
    return await api.deliver(stripe_event, **{"Stripe-Signature": header})


async def bought(url: str, postgres: str, objects: dict[str, dict[str, Any]]) -> None:
    """A purchase through the mock server; then its objects as webhooks, with our amounts and ids."""
    async with migrated_database(postgres) as database, credit_api(database) as api:
        gateway = StripeGateway(KEY, url, "trial")
        api.stripe.customer = gateway.customer  # type: ignore[method-assign]
        api.stripe.session = gateway.session  # type: ignore[method-assign]
        purchase = await api.buy()
        paid = objects["session"] | {
            "id": purchase["session_id"],
            "amount_total": 1000,
            "currency": "usd",
            "payment_status": "paid",
            "payment_intent": "pi_1",
            "metadata": {"meterbridge_purchase": purchase["purchase_id"]},
        }
        completed = event("checkout.session.completed", paid)
        assert [await signed_by_the_library(api, completed) for _ in range(3)] == ["applied", "repeated", "repeated"]
        refund = objects["charge"] | {"payment_intent": "pi_1", "amount": 1000, "amount_refunded": 400}
        assert await signed_by_the_library(api, event("charge.refunded", refund)) == "applied"
        dispute = objects["dispute"] | {"payment_intent": "pi_1", "amount": 600, "status": "lost"}
        assert await signed_by_the_library(api, event("charge.dispute.closed", dispute)) == "applied"
        assert await api.balance("user:ada") == 0
        await balanced(database)
        await gateway.close()


async def run_all() -> None:
    """Run everything."""
    postgres = await asyncio.to_thread(start_postgres, os.environ)
    try:
        async with stripe_mock() as url:
            await sessions_and_customers(url)
            await bought(url, postgres.url, await shapes(url))
    finally:
        await asyncio.to_thread(postgres.stop)


def main() -> int:
    """The exit code."""
    try:
        asyncio.run(run_all())
    except NoGoError:
        print("NOT TRIED: Go is needed to build Stripe's mock server")
        return 2
    except AssertionError as wrong:
        print(f"FAILED: {wrong}")
        raise
    print("CREDITED ONCE through Stripe's mock server, and its objects are read as they are")
    return 0


if __name__ == "__main__":
    sys.exit(main())
