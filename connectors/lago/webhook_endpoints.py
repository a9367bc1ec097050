"""Requests about the endpoints to which Lago sends webhooks: at most ten, with different addresses."""

from connectors.lago.requests import NewWebhookEndpoint
from connectors.lago.responses import WebhookEndpoint
from connectors.lago.transport import LagoTransport


class WebhookEndpointsApi(LagoTransport):
    """`/webhook_endpoints`."""

    async def webhook_endpoints(self) -> list[WebhookEndpoint]:
        """Return all endpoints. Raises: LagoIntegrationError."""
        return await self._every("webhook_endpoints", "/webhook_endpoints", "webhook_endpoints", WebhookEndpoint)

    async def create_webhook_endpoint(self, new_endpoint: NewWebhookEndpoint) -> WebhookEndpoint:
        """Create an endpoint, or return the existing one with this address, which may differ.

        Raises:
            LagoRejected: on `base` `exceeded_limit`: there are ten already.
            LagoIntegrationError
        """

        async def known() -> WebhookEndpoint | None:
            listed = await self.webhook_endpoints()
            return next((one for one in listed if one.webhook_url == new_endpoint.webhook_url), None)

        name, path = "create_webhook_endpoint", "/webhook_endpoints"
        return await self._created(name, path, "webhook_endpoint", WebhookEndpoint, new_endpoint, "webhook_url", known)
