"""The client of Lago's HTTP API. Its errors say whether the request may be repeated.

Each resource has a module. docs/lago-behaviour.md describes the requests and responses, with their sources.
"""

from connectors.lago.catalogue import CatalogueApi
from connectors.lago.customers import CustomersApi
from connectors.lago.errors import LagoIntegrationError, LagoRejected, LagoUnavailable
from connectors.lago.events import EventsApi
from connectors.lago.invoices import InvoicesApi
from connectors.lago.server import ServerApi
from connectors.lago.subscriptions import SubscriptionsApi
from connectors.lago.transport import lago_http
from connectors.lago.usage import UsageApi
from connectors.lago.webhook_endpoints import WebhookEndpointsApi

__all__ = ["LagoClient", "LagoIntegrationError", "LagoRejected", "LagoUnavailable", "lago_http"]


class LagoClient(
    EventsApi, ServerApi, CustomersApi, SubscriptionsApi, CatalogueApi, UsageApi, InvoicesApi, WebhookEndpointsApi
):
    """A client for all resources of one Lago with one API key. See `LagoTransport` for the arguments."""
