"""Calls Stripe's API with the official library: customers and Checkout sessions.

The library is imported at the first use, because the import takes a third of a second and most processes sell nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

import structlog

from connectors.credits.idempotency_keys import key_of_parts
from connectors.credits.stripe_events import PURCHASE
from schemas.errors import ConfigurationError, Rejected, Unavailable

#: Time limit of one request, seconds, and how often the library repeats a request without a response. Repeats are safe,
#: because they have an idempotency key.
_TIMEOUT_S: Final = 10.0
_RETRIES: Final = 1

_log = structlog.get_logger(__name__)


class Order(NamedTuple):
    """The product of a Checkout session; `price` is in the smallest unit of `currency`."""

    purchase_id: str
    name: str
    price: int
    currency: str
    success_url: str
    cancel_url: str


class Session(NamedTuple):
    """A Checkout session; `url` is `""` once it cannot be paid any more."""

    session_id: str
    url: str
    live: bool


class PaymentGateway(Protocol):
    """The payment provider. All methods raise Unavailable, Rejected `stripe_refused`, and ConfigurationError."""

    async def customer(self, account: str) -> str:
        """Create a customer; return its id. Within a day the same account gets the same customer."""

    async def session(self, order: Order, customer: str) -> Session:
        """Create a session for the order. Within a day the same order gets the same session."""

    async def existing(self, session_id: str) -> Session:
        """Return a session that was created before."""

    async def close(self) -> None:
        """Close the connections."""


class StripeGateway:
    """Implements `PaymentGateway` with Stripe.

    Args:
        api_key: `STRIPE_API_KEY`.
        url: `STRIPE_API_URL`.
        scope: `DEPLOYMENT_NAME`, which makes the idempotency keys of two deployments different.
    """

    def __init__(self, api_key: str, url: str, scope: str) -> None:
        self._api_key = api_key
        self._url = url
        self._scope = scope
        self._http: Any = None

    async def customer(self, account: str) -> str:
        """See `PaymentGateway`. Stripe gets the account's name and nothing else about the user."""
        params = {"metadata": {"meterbridge_account": account}, "description": account}
        with _decisions():
            made = await self._client.v1.customers.create_async(params, self._keyed("customer", account))
        return str(made.id)

    async def session(self, order: Order, customer: str) -> Session:
        """See `PaymentGateway`. Neither discounts nor taxes change the amount: it is compared with the price."""
        metadata = {PURCHASE: order.purchase_id}
        params = {
            "mode": "payment",
            "customer": customer,
            "client_reference_id": order.purchase_id,
            "line_items": [
                {
                    "price_data": {
                        "currency": order.currency,
                        "unit_amount": order.price,
                        "product_data": {"name": order.name},
                    },
                    "quantity": 1,
                }
            ],
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
            "success_url": order.success_url,
            "cancel_url": order.cancel_url,
        }
        with _decisions():
            made = await self._client.v1.checkout.sessions.create_async(
                params, self._keyed("session", order.purchase_id)
            )
        return _session(made)

    async def existing(self, session_id: str) -> Session:
        """See `PaymentGateway`."""
        with _decisions():
            return _session(await self._client.v1.checkout.sessions.retrieve_async(session_id))

    async def close(self) -> None:
        """See `PaymentGateway`."""
        if self._http is not None:
            await self._http.close_async()

    @cached_property
    def _client(self) -> Any:
        import stripe

        stripe.enable_telemetry = False  # the telemetry names the machine, and stores requests
        self._http = stripe.HTTPXClient(timeout=_TIMEOUT_S)
        return stripe.StripeClient(
            self._api_key,
            http_client=self._http,
            base_addresses={"api": self._url},
            max_network_retries=_RETRIES,
        )

    def _keyed(self, *parts: str) -> dict[str, str]:
        return {"idempotency_key": key_of_parts(self._scope, *parts)}


def _session(made: Any) -> Session:
    return Session(str(made.id), str(made.url or ""), bool(made.livemode))


@contextmanager
def _decisions() -> Iterator[None]:
    """Translate Stripe's errors. Their messages contain parameters and a part of the key, so they are not passed on."""
    import stripe

    try:
        yield
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        sentence = "Stripe refuses the key of STRIPE_API_KEY, or the key may not do this"
        raise ConfigurationError("STRIPE_API_KEY", sentence) from error
    except (stripe.APIConnectionError, stripe.RateLimitError) as error:
        raise Unavailable("stripe_away", type(error).__name__) from error
    except stripe.StripeError as error:
        if (
            error.http_status == 409 or (error.http_status or 500) >= 500
        ):  # 409: the same key is in use by another request
            raise Unavailable("stripe_away", f"HTTP {error.http_status or 'error'}") from error
        _log.warning("stripe_refused", status=error.http_status, code=error.code, request=error.request_id)
        raise Rejected("stripe_refused", f"HTTP {error.http_status}, code {error.code}") from error
