"""Where Lago sends its webhooks: at most ten addresses, each once."""

from connectors.lago.errors import LagoRejected
from connectors.lago.requests import NewWebhookEndpoint
from connectors.lago.response_types import WebhookEndpoint
from connectors.lago.transport import LagoTransport


class WebhookEndpointsApi(LagoTransport):
    """`/webhook_endpoints`."""

    async def webhook_endpoints(self) -> list[WebhookEndpoint]:
        """All of them, by address. Raises: LagoIntegrationError."""
        return await self._every("webhook_endpoints", "/webhook_endpoints", "webhook_endpoints", WebhookEndpoint)

    async def create_webhook_endpoint(self, wanted: NewWebhookEndpoint) -> WebhookEndpoint:
        """The endpoint of this address: the one that is there, which may differ, or a new one.

        Raises:
            LagoRejected: on `base` `exceeded_limit`: there are ten.
            LagoIntegrationError
        """
        try:
            return await self._one(
                "create_webhook_endpoint",
                "/webhook_endpoints",
                "webhook_endpoint",
                WebhookEndpoint,
                verb="POST",
                body=wanted,
            )
        except LagoRejected as error:
            if error.says("webhook_url", "value_already_exist"):
                for known in await self.webhook_endpoints():
                    if known.webhook_url == wanted.webhook_url:
                        return known
            raise
