"""The bodies that the webhooks of usage take: for each path its senders, the fields of a minimal call, and an example.

Every path reads every format (docs/ingress.md). The fields in other_routes.json are those that a sender of its own needs;
more are allowed.
"""

from importlib.resources import files
from typing import Any, Final

import msgspec

Json = dict[str, Any]


class _Texts(msgspec.Struct, forbid_unknown_fields=True):
    """The contents of other_routes.json. The schemas and examples of calls have the same names."""

    schemas: dict[str, Json]
    security: dict[str, Json]
    examples: dict[str, Json]
    summaries: dict[str, str]


TEXTS: Final = msgspec.json.decode(files(__package__).joinpath("other_routes.json").read_bytes(), type=_Texts)
_SCHEMAS, _EXAMPLES = TEXTS.schemas, TEXTS.examples
_LAGOS_BATCH: Final[Json] = {
    "type": "object",
    "required": ["events"],
    "properties": {
        "events": {"type": "array", "description": "The calls.", "items": _SCHEMAS["lago"]["properties"]["event"]},
    },
}
_CALLS: Final = [_EXAMPLES["sent_by_hand"], {**_EXAMPLES["sent_by_hand"], "id": "try-2", "cost_usd": "0.0045"}]


def _body(one: Json, example: Any, content_type: str = "application/json") -> Json:
    several = {"type": "array", "items": one}
    return {"required": True, "content": {content_type: {"schema": {"anyOf": [one, several]}, "example": example}}}


_BODIES: Final = {
    "/webhook/litellm/usage": _body(_SCHEMAS["litellm"], [_EXAMPLES["litellm"]]),
    "/webhooks/litellm": _body(_SCHEMAS["sent_by_hand"], _CALLS[0]),
    "/webhooks/litellm/batch": _body(_SCHEMAS["sent_by_hand"], _CALLS),
    "/api/v1/events": _body(_SCHEMAS["lago"], _EXAMPLES["lago"]),
    "/api/v1/events/batch": _body(_LAGOS_BATCH, {"events": [_EXAMPLES["lago"]["event"]]}),
    "/openmeter/api/v1/events": _body(
        _SCHEMAS["cloud_event"], _EXAMPLES["cloud_event"], "application/cloudevents+json"
    ),
}
#: By path: one sentence for the OpenAPI document, and the body.
USAGE_BODIES: Final = {path: (TEXTS.summaries[path], body) for path, body in _BODIES.items()}
