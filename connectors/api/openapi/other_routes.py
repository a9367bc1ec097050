"""Routes that are no endpoints of the management API, in OpenAPI's words: webhooks, health, metrics, the document."""

from typing import Any, Final

from connectors.ingest.routes import ROUTES

Json = dict[str, Any]

PROBLEM: Final[Json] = {
    "title": "Problem",
    "description": "RFC 9457: what went wrong. `reason` is a stable code (docs/errors.md), `detail` is for people.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}

SECURITY: Final[dict[str, Json]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The master key, an own API key (`mb_...`), or below `/api/customers` and `/api/billing` Lago's key.",
    },
    "oidc": {"type": "openIdConnect", "description": "A user's access token; its claims give scopes and orgs."},
    "webhookToken": {"type": "http", "scheme": "bearer", "description": "One of `WEBHOOK_TOKEN`."},
    "webhookSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Webhook-Signature",
        "description": "HMAC-SHA256 of the body with one of `WEBHOOK_SECRET`.",
    },
}


def problem(sentence: str) -> Json:
    """An answer that is problem JSON."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": sentence, "content": {"application/problem+json": {"schema": schema}}}


def _json(sentence: str, schema: Json | None = None) -> Json:
    return {"description": sentence, "content": {"application/json": {"schema": schema or {"type": "object"}}}}


def _text(sentence: str, content_type: str) -> Json:
    return {"description": sentence, "content": {content_type: {"schema": {"type": "string"}}}}


_ACCEPTED: Final[Json] = {
    "type": "object",
    "required": ["status", "message"],
    "properties": {
        "status": {"const": "accepted"},
        "message": {"type": "string"},
        "accepted": {"type": "integer"},
        "rejected": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"index": {"type": "integer"}, "reason": {"type": "string"}},
            },
        },
    },
}
_USAGE: Final[Json] = {
    "summary": "Usage comes in: one element, an array, or a line each; answered once it is durable.",
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": ["object", "array"]}}}},
    "responses": {
        "202": _json("All but the rejected elements are durable.", _ACCEPTED),
        "400": problem("It is no JSON, or holds no elements."),
        "401": problem("Neither a known token nor a valid signature."),
        "413": problem("Larger than `MAX_BODY_BYTES`."),
        "503": problem(
            "It cannot be stored now; `Retry-After` says when to come again. Never 429: LiteLLM drops that."
        ),
        "default": problem("Anything else that is wrong."),
    },
    "security": [{"webhookToken": []}, {"webhookSignature": []}, {}],
}
_STATE: Final[Json] = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}


def _open(summary: str, responses: Json) -> Json:
    return {"summary": summary, "responses": responses, "security": []}


_PROMETHEUS: Final = _open("Metrics in Prometheus' text.", {"200": _text("The metrics.", "text/plain")})

DESCRIBED: Final[dict[tuple[str, str], Json]] = {
    **{("POST", route.path): _USAGE for route in ROUTES},
    ("GET", "/health"): _open(
        "How every neighbour is.", {"200": _json("All are well.", _STATE), "503": _json("Some are not.", _STATE)}
    ),
    ("GET", "/health/live"): _open(
        "Whether the process is to be restarted.",
        {"200": _json("It lives.", _STATE), "503": problem("It stands still.")},
    ),
    ("GET", "/health/ready"): _open(
        "Whether records can be stored.", {"200": _json("They can.", _STATE), "503": problem("Not now.")}
    ),
    ("GET", "/health/metrics"): _PROMETHEUS,
    ("GET", "/metrics/prometheus"): _PROMETHEUS,
    ("GET", "/openapi.json"): _open("This document.", {"200": _json("OpenAPI 3.1.")}),
    ("GET", "/docs"): _open("This document as a page.", {"200": _text("HTML.", "text/html")}),
}
