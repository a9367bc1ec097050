"""Reads the usage that Lago counts in the running period. Lago rounds each fee to the cent."""

from decimal import Decimal

from connectors.lago.customers import customer_part
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import CustomerUsage
from connectors.lago.transport import LagoTransport, quoted, read
from schemas.moments import parse_us
from streams.core.metering.reconciliation import LagoUsage


class UsageApi(LagoTransport):
    """`/customers/{id}/current_usage`."""

    async def usage(self, external_customer_id: str, subscription: str) -> CustomerUsage | None:
        """Return all usage that Lago counts now; None if the subscription is not active. Raises: LagoIntegrationError."""
        path = (
            f"/customers/{customer_part(self.in_lago(external_customer_id))}/current_usage"
            f"?external_subscription_id={quoted(subscription)}"
        )
        try:
            return await self._get_or_none("current_usage", path, "customer_usage", CustomerUsage)
        except LagoRejected as error:
            if error.code == "no_active_subscription":
                return None
            raise

    async def current_usage(self, external_customer_id: str, subscription: str, code: str) -> LagoUsage | None:
        """Return the part of the usage on the metric `code`. Raises: LagoIntegrationError."""
        answer = await self.usage(external_customer_id, subscription)
        return None if answer is None else read(lambda usage: usage_of(subscription, usage, code), answer)


def usage_of(subscription: str, usage: CustomerUsage, code: str) -> LagoUsage:
    """Return the part of the usage on the metric `code`. Raises: Rejected `bad_time`."""
    ours = [charge for charge in usage.charges_usage if charge.billable_metric.code == code]
    return LagoUsage(
        subscription,
        parse_us(usage.from_datetime),
        parse_us(usage.to_datetime) + 1,
        Decimal(sum(charge.amount_cents for charge in ours)),
        sum(max(1, len(charge.grouped_usage), len(charge.filters)) for charge in ours),
        any(charge.events_count for charge in ours),
    )
