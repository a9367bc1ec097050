"""Webhook endpoints: the addresses that receive webhooks.

Source: `app/models/webhook_endpoint.rb`, `app/services/webhook_endpoints/create_service.rb`,
`app/queries/webhook_endpoints_query.rb` of lago-api.
"""

from typing import Any
from urllib.parse import urlsplit

from connectors.lago_sandbox.coercion import blank, text
from connectors.lago_sandbox.identifiers import ORGANIZATION, Identifiers
from connectors.lago_sandbox.instants import iso
from connectors.lago_sandbox.refusals import crashed, invalid

MAX_ENDPOINTS = 10
_ALGORITHMS = ("jwt", "hmac")


class Endpoints:
    """Every webhook endpoint of the organization, in Lago's JSON, by address."""

    def __init__(self, identifiers: Identifiers) -> None:
        self.all: dict[str, dict[str, Any]] = {}
        self._identifiers = identifiers

    def add(self, sent: dict[str, Any], now_us: int) -> dict[str, Any]:
        """Create one.

        Raises:
            SandboxRefusal: 422; 500 for an algorithm that Lago does not have.
        """
        url, algorithm = text(sent.get("webhook_url")) or "", text(sent.get("signature_algo")) or "jwt"
        if algorithm not in _ALGORITHMS:
            raise crashed()
        errors: dict[str, list[str]] = {}
        if blank(url):
            errors["webhook_url"] = ["value_is_mandatory"]
        elif urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            errors["webhook_url"] = ["url_invalid"]
        elif url in self.all:
            errors["webhook_url"] = ["value_already_exist"]
        if len(self.all) >= MAX_ENDPOINTS:
            errors["base"] = ["exceeded_limit"]
        if errors:
            raise invalid(errors)
        types = sent.get("event_types")
        self.all[url] = {
            "lago_id": self._identifiers.new("webhook_endpoint"),
            "lago_organization_id": ORGANIZATION,
            "webhook_url": url,
            "signature_algo": algorithm,
            "name": sent.get("name"),
            "event_types": None if types in (None, ["*"]) else types,
            "created_at": iso(now_us),
        }
        return self.all[url]

    def listed(self) -> list[dict[str, Any]]:
        """Return all, sorted by address."""
        return [self.all[url] for url in sorted(self.all)]
