"""The bodies that the webhooks of usage take: for each path its senders, the fields of a minimal call, and an example.

Every path reads every format (docs/ingress.md). The fields here are those that a sender of its own needs; more are allowed.
"""

from typing import Any, Final

Json = dict[str, Any]

_ID: Final = ["string", "integer"]
_COUNT: Final = ["integer", "string"]
_AMOUNT: Final = ["string", "number"]
_TIME: Final = ["string", "number"]


def _field(types: list[str], description: str) -> Json:
    return {"type": types, "description": description}


_MODEL: Final = _field(["string"], "The model.")
_SENT_BY_HAND: Final[Json] = {
    "type": "object",
    "description": "One call.",
    "required": ["id"],
    "properties": {
        "id": _field(_ID, "Identifies the call, with `timestamp`: two reports with the same ones are billed once."),
        "customer_id": _field(
            _ID, "The customer. A mapping says which org pays for it; without a customer the usage is held."
        ),
        "model": _MODEL,
        "provider": _field(["string"], "The LLM provider, e.g. `openai`."),
        "tokens_input": _field(_COUNT, "Input tokens, 0 or more."),
        "tokens_output": _field(_COUNT, "Output tokens, 0 or more."),
        "cost_usd": _field(
            _AMOUNT,
            "The cost in US dollars, best as text, so that no digit is lost; without it the call is not billed, unless a rate card prices it.",
        ),
        "timestamp": _field(_TIME, "End of the call: ISO 8601, or a number since 1970; absent = when it arrives."),
        "api_key_hash": _field(_ID, "SHA-256 of the caller's LiteLLM key."),
    },
}
_LITELLMS: Final[Json] = {
    "type": "object",
    "description": "One call, as LiteLLM's StandardLoggingPayload or flat. `id` or `litellm_call_id` is needed.",
    "properties": {
        "id": _field(_ID, "The id of the provider's answer."),
        "litellm_call_id": _field(_ID, "LiteLLM's id of the call."),
        "end_user": _field(_ID, "The customer; `CUSTOMER_ID_FIELDS` says which field counts."),
        "model": _MODEL,
        "custom_llm_provider": _field(["string"], "The LLM provider, e.g. `openai`."),
        "prompt_tokens": _field(_COUNT, "Input tokens, 0 or more."),
        "completion_tokens": _field(_COUNT, "Output tokens, 0 or more."),
        "response_cost": _field(_AMOUNT, "The cost in US dollars."),
        "startTime": _field(_TIME, "Start of the call: seconds since 1970, or ISO 8601."),
        "endTime": _field(_TIME, "End of the call: seconds since 1970, or ISO 8601."),
    },
}
_LAGOS: Final[Json] = {
    "type": "object",
    "required": ["event"],
    "properties": {
        "event": {
            "type": "object",
            "description": "One call, in Lago's form of an event.",
            "required": ["transaction_id"],
            "properties": {
                "transaction_id": _field(_ID, "Identifies the call, with `external_subscription_id`."),
                "external_subscription_id": _field(_ID, "The customer. A mapping says which org pays for it."),
                "code": _field(["string"], "Lago's code of the metric. It is not read."),
                "timestamp": _field(_TIME, "End of the call; absent = when it arrives."),
                "properties": {
                    "type": "object",
                    "description": "What was used.",
                    "properties": {
                        "model": _MODEL,
                        "response_cost": _field(_AMOUNT, "The cost in US dollars."),
                        "prompt_tokens": _field(_COUNT, "Input tokens, 0 or more."),
                        "completion_tokens": _field(_COUNT, "Output tokens, 0 or more."),
                        "total_tokens": _field(_COUNT, "All tokens, 0 or more."),
                    },
                },
            },
        },
    },
}
_CLOUD_EVENT: Final[Json] = {
    "type": "object",
    "description": "One call, as a CloudEvent 1.0.",
    "required": ["specversion", "id", "data"],
    "properties": {
        "specversion": _field(["string"], "Always `1.0`."),
        "type": _field(["string"], "The kind of event. It is not read."),
        "id": _field(_ID, "Identifies the call, with `source`."),
        "source": _field(["string"], "Who sends the event."),
        "subject": _field(_ID, "The customer. A mapping says which org pays for it."),
        "time": _field(["string"], "End of the call, ISO 8601; absent = when it arrives."),
        "data": {
            "type": "object",
            "description": "What was used.",
            "properties": {
                "model": _MODEL,
                "cost": _field(_AMOUNT, "The cost in US dollars."),
                "prompt_tokens": _field(_COUNT, "Input tokens, 0 or more."),
                "completion_tokens": _field(_COUNT, "Output tokens, 0 or more."),
                "total_tokens": _field(_COUNT, "All tokens, 0 or more."),
            },
        },
    },
}

_CALL: Final[Json] = {
    "id": "try-1",
    "customer_id": "acme",
    "model": "gpt-4o",
    "tokens_input": 100,
    "tokens_output": 20,
    "cost_usd": "0.0123",
}
_LITELLMS_CALL: Final[Json] = {
    "id": "chatcmpl-1",
    "litellm_call_id": "b7c5e7a0-0000-4000-8000-000000000001",
    "end_user": "acme",
    "model": "gpt-4o",
    "custom_llm_provider": "openai",
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "response_cost": 0.0123,
    "startTime": 1798761600.0,
    "endTime": 1798761601.5,
}
_TOKENS: Final[Json] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
_LAGOS_CALL: Final[Json] = {
    "event": {
        "transaction_id": "try-1",
        "external_subscription_id": "acme",
        "code": "litellm_tokens",
        "properties": {"model": "gpt-4o", "response_cost": 0.0123, **_TOKENS},
    }
}
_LAGOS_CALLS: Final[Json] = {"events": [_LAGOS_CALL["event"]]}
_LAGOS_BATCH: Final[Json] = {
    "type": "object",
    "required": ["events"],
    "properties": {
        "events": {"type": "array", "description": "The calls.", "items": _LAGOS["properties"]["event"]},
    },
}
_EVENT: Final[Json] = {
    "specversion": "1.0",
    "type": "litellm_tokens",
    "id": "try-1",
    "source": "my-service",
    "subject": "acme",
    "time": "2027-01-01T12:00:00Z",
    "data": {"model": "gpt-4o", "cost": "0.0123", **_TOKENS},
}


def _body(one: Json, example: Any, content_type: str = "application/json") -> Json:
    several = {"type": "array", "items": one}
    return {"required": True, "content": {content_type: {"schema": {"anyOf": [one, several]}, "example": example}}}


#: By path: one sentence for the OpenAPI document, and the body.
USAGE_BODIES: Final[dict[str, tuple[str, Json]]] = {
    "/webhook/litellm/usage": (
        "One call or an array of calls: LiteLLM's `generic_api` callback posts here.",
        _body(_LITELLMS, [_LITELLMS_CALL]),
    ),
    "/webhooks/litellm": (
        "Usage from a sender of your own: one call, or an array of calls.",
        _body(_SENT_BY_HAND, _CALL),
    ),
    "/webhooks/litellm/batch": (
        "Usage from a sender of your own that has a separate address for arrays; takes what `/webhooks/litellm` takes.",
        _body(_SENT_BY_HAND, [_CALL, {**_CALL, "id": "try-2", "cost_usd": "0.0045"}]),
    ),
    "/api/v1/events": (
        "One call in Lago's form of an event: LiteLLM's `lago` callback posts here.",
        _body(_LAGOS, _LAGOS_CALL),
    ),
    "/api/v1/events/batch": (
        "Several calls in Lago's form of events, as senders to Lago's own batch endpoint post them.",
        _body(_LAGOS_BATCH, _LAGOS_CALLS),
    ),
    "/openmeter/api/v1/events": (
        "Calls as CloudEvents: LiteLLM's `openmeter` callback posts here.",
        _body(_CLOUD_EVENT, _EVENT, "application/cloudevents+json"),
    ),
}
