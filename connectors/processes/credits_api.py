"""Composes the credit endpoints and Stripe's webhook in one API process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.api.credits import CreditHandlers
from connectors.api.stripe_webhooks import StripeWebhooks
from connectors.config.connections import all_revealed, needed, revealed
from connectors.config.settings import Settings
from connectors.credits.account_turns import AccountTurns
from connectors.credits.ledger import CreditLedger
from connectors.credits.payments import StripePayments
from connectors.credits.purchases import Purchases
from connectors.credits.stripe_gateway import StripeGateway
from connectors.http.endpoint import Endpoint, endpoints_of
from connectors.postgres.pool import FREE_S
from connectors.processes.api_databases import ApiDatabases
from connectors.telemetry.metrics import Metrics
from schemas.errors import ConfigurationError
from schemas.reasons import CREDITS_POOL


class CreditsApi:
    """The credit endpoints. Without Postgres they answer 501 `needs_postgres`; without a key of Stripe's nothing can be bought."""

    def __init__(self, settings: Settings, metrics: Metrics, databases: ApiDatabases | None) -> None:
        self._settings = settings
        self._count = lambda outcome: metrics.stripe_events.labels(outcome).inc()
        self._databases = databases
        self._turns = AccountTurns(FREE_S, metrics.api_postgres_refused.labels(CREDITS_POOL).inc)
        self._gateway = None
        if key := revealed(settings.stripe_api_key):
            self._gateway = StripeGateway(key, settings.stripe_api_url, settings.deployment_name)

    def endpoints(self) -> list[Endpoint]:
        """Return all endpoints, even if their dependencies are not configured."""
        handlers = CreditHandlers(
            self._ledger, self._payments, self._purchases, self._settings.credits_allowed_overdraft
        )
        webhooks = StripeWebhooks(self._payments, all_revealed(self._settings.stripe_webhook_secret), self._count)
        return [*endpoints_of(handlers), *webhooks.endpoints()]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Close the connections to Stripe on exit."""
        try:
            yield
        finally:
            if self._gateway is not None:
                await self._gateway.close()

    def _ledger(self) -> CreditLedger:
        databases = needed(self._databases, self._settings)
        return CreditLedger(databases.credits, databases.slow, self._turns)

    def _payments(self) -> StripePayments:
        return StripePayments(needed(self._databases, self._settings).credits, self._count)

    def _purchases(self) -> Purchases:
        database = needed(self._databases, self._settings).credits
        if self._gateway is None:
            raise ConfigurationError("STRIPE_API_KEY", "STRIPE_API_KEY is not set, so credits cannot be bought")
        return Purchases(database, self._gateway)
