"""OpenAPI descriptions of the routes that are not endpoints of the management API: webhooks, health, metrics, this document."""

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
    """Return a response that is problem JSON."""
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
        "status": {
            "enum": ["accepted", "rejected"],
            "description": "`rejected`: no element was stored as a call, and at least one was rejected.",
        },
        "message": {"type": "string"},
        "accepted": {"type": "integer"},
        "rejected": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "reason": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
_USAGE: Final[Json] = {
    "summary": "Send usage: one element, an array, or one element per line. The answer comes when all of it is durable.",
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": ["object", "array"]}}}},
    "responses": {
        "202": _json("All but the rejected elements are durable.", _ACCEPTED),
        "400": problem("The body is not JSON, or has no elements."),
        "401": problem("Neither a known token (`Authorization: Bearer <one of WEBHOOK_TOKEN>`) nor a valid signature."),
        "413": problem("Larger than `MAX_BODY_BYTES`."),
        "503": problem("It cannot be stored now; `Retry-After` says when to try again. Never 429: LiteLLM drops that."),
        "default": problem("Any other error."),
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
        "The state of every dependency.",
        {"200": _json("All are available.", _STATE), "503": _json("At least one is not.", _STATE)},
    ),
    ("GET", "/health/live"): _open(
        "Whether the process must be restarted.",
        {"200": _json("It runs.", _STATE), "503": problem("Its event loop is blocked.")},
    ),
    ("GET", "/health/ready"): _open(
        "Whether records can be stored.",
        {"200": _json("They can be stored.", _STATE), "503": problem("They cannot be stored now.")},
    ),
    ("GET", "/health/metrics"): _PROMETHEUS,
    ("GET", "/metrics/prometheus"): _PROMETHEUS,
    ("GET", "/openapi.json"): _open("The OpenAPI document.", {"200": _json("OpenAPI 3.1.")}),
    ("GET", "/docs"): _open("The OpenAPI document as a page.", {"200": _text("HTML.", "text/html")}),
}
