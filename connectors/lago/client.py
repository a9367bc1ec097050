"""Lago's HTTP API as this product uses it: one pooled client, every error turned into a decision.

A module for each resource; the shapes are described, with their sources, in docs/lago-behaviour.md.
"""

from connectors.lago.catalogue import Catalogue
from connectors.lago.customers import Customers
from connectors.lago.errors import LagoIntegrationError, LagoRejected, LagoUnavailable
from connectors.lago.events import Events
from connectors.lago.invoices import Invoices
from connectors.lago.server import Server
from connectors.lago.subscriptions import Subscriptions
from connectors.lago.transport import lago_http
from connectors.lago.usage import Usage
from connectors.lago.webhook_endpoints import WebhookEndpoints

__all__ = ["LagoClient", "LagoIntegrationError", "LagoRejected", "LagoUnavailable", "lago_http"]


class LagoClient(Events, Server, Customers, Subscriptions, Catalogue, Usage, Invoices, WebhookEndpoints):
    """One Lago, one API key: every resource. For its arguments see `Wire`."""
