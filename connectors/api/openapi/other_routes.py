"""OpenAPI descriptions of the routes that are not endpoints of the management API: webhooks, health, metrics, this document."""

from typing import Any, Final

from connectors.api.openapi.usage_bodies import TEXTS, USAGE_BODIES
from connectors.ingest.routes import ROUTES

Json = dict[str, Any]

PROBLEM: Final = TEXTS.schemas["Problem"]
SECURITY: Final = TEXTS.security


def problem(sentence: str) -> Json:
    """Return a response that is problem JSON."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": sentence, "content": {"application/problem+json": {"schema": schema}}}


def _json(sentence: str, schema: Json | None = None) -> Json:
    return {"description": sentence, "content": {"application/json": {"schema": schema or {"type": "object"}}}}


def _text(sentence: str, content_type: str) -> Json:
    return {"description": sentence, "content": {content_type: {"schema": {"type": "string"}}}}


_USAGE: Final[Json] = {
    "description": (
        "One element, an array, or one element per line. The answer comes when all of it is durable. Other fields are allowed, and "
        "every path takes every format (docs/ingress.md)."
    ),
    "responses": {
        "202": _json("All but the rejected elements are durable.", TEXTS.schemas["Accepted"]),
        "400": problem("The body is not JSON, or has no elements."),
        "401": problem("Neither a known token (`Authorization: Bearer <one of WEBHOOK_TOKEN>`) nor a valid signature."),
        "413": problem("Larger than `MAX_BODY_BYTES`."),
        "503": problem("It cannot be stored now; `Retry-After` says when to try again. Never 429: LiteLLM drops that."),
        "default": problem("Any other error."),
    },
    "security": [{"webhookToken": []}, {"webhookSignature": []}, {}],
}
_STATE: Final = TEXTS.schemas["State"]


def _open(summary: str, responses: Json) -> Json:
    return {"summary": summary, "responses": responses, "security": []}


def _usage(path: str) -> Json:
    summary, body = USAGE_BODIES[path]
    return {"summary": summary, "requestBody": body, **_USAGE}


_PROMETHEUS: Final = _open("Metrics in Prometheus' text.", {"200": _text("The metrics.", "text/plain")})

DESCRIBED: Final[dict[tuple[str, str], Json]] = {
    **{("POST", route.path): _usage(route.path) for route in ROUTES},
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
