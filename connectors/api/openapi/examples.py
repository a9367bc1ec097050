"""An example of each body that the management API takes, in one story: the org `org_acme` pays for the LiteLLM customer `acme`."""

from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]

#: By the name of the model of the body.
EXAMPLES: Final[Mapping[str, Json]] = {
    "SetupBody": {"plan_code": "ai_basic", "org_name": "Acme", "email": "billing@acme.example", "user_id": "user_1"},
    "PlanChangeBody": {"plan_code": "professional"},
    "UsageBody": {
        "event_code": "api_call",
        "transaction_id": "tx-1",
        "properties": {"tokens": 150, "user_id": "user_1"},
        "timestamp": "2027-01-01T12:00:00Z",
    },
    "LimitsBody": {"limits": {"tokens": 5_000_000, "amount_cents": 10_000}},
    "CustomerBody": {
        "external_id": "customer-123",
        "name": "Acme Corporation",
        "email": "billing@acme.example",
        "plan_code": "ai_usage_plan",
    },
    "PlanBody": {
        "name": "Premium AI Plan",
        "code": "premium_ai_plan",
        "interval": "monthly",
        "amount_cents": 2000,
        "amount_currency": "USD",
        "charges": [
            {"billable_metric_id": "ai_usage", "charge_model": "standard", "properties": {"amount": "0.002"}},
        ],
    },
    "MappingBody": {"litellm_customer_id": "acme", "lago_customer_id": "org_acme", "lago_organization_id": "main"},
    "EndingBody": {"effective_from": "2027-01-31T00:00:00Z"},
    "NewKey": {"name": "billing dashboard", "scopes": ["orgs:read"], "orgs": ["org_acme"]},
    "Overlap": {"overlap_hours": 24},
    "AuthorizeBody": {"account": "org:org_acme", "estimate": "0.25", "ttl": 600, "call_id": "the-litellm-call-id"},
    "DebitBody": {
        "account": "user:ada",
        "cost": "0.0123",
        "provider": "openai",
        "model": "gpt-4o",
        "prompt_tokens": 100,
        "completion_tokens": 20,
    },
    "PurchaseBody": {
        "account": "user:ada",
        "package_id": 1,
        "success_url": "https://shop.example/credits?paid=1",
        "cancel_url": "https://shop.example/credits",
    },
    "NewProviderKey": {"provider": "openai", "api_key": "the-key-of-the-provider", "key_name": "my key"},
    "WantedKey": {"user_id": "ada", "provider": "openai"},
    "RetryBody": {"kind": "events", "reason": "lago_refused", "dry_run": True},
}

_CSV = "litellm_customer_id,lago_customer_id,lago_organization_id\nacme,org_acme,main\nglobex,org_globex,main\n"
#: Bodies of endpoints that have no model for the whole body, by method and path.
OTHER_BODIES: Final[Mapping[tuple[str, str], Json]] = {
    ("POST", "/customers/mappings/import"): {
        "description": "At most 10 000 rows and 8 MiB: an array, an object per line, or CSV with a header.",
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "array", "items": {"$ref": "#/components/schemas/MappingBody"}},
                "example": [
                    {"litellm_customer_id": "acme", "lago_customer_id": "org_acme", "lago_organization_id": "main"},
                ],
            },
            "text/csv": {"schema": {"type": "string"}, "example": _CSV},
        },
    },
}
