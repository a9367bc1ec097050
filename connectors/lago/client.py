"""Lago's HTTP API as this product uses it: one pooled client, every error turned into a decision.

A module for each resource; the shapes are described, with their sources, in docs/lago-behaviour.md.
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
    """One Lago, one API key: every resource. For its arguments see `Wire`."""
