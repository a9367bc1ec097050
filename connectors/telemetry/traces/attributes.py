"""The complete list of the attributes of spans; long texts are cut.

An attribute that is not here is never exported (tests/integration/test_traces.py). No attribute contains a prompt, a
response, a key, or the id of a customer, an org or a user. Names are those of OpenTelemetry's semantic conventions
(HTTP; messaging: Kafka; GenAI), and `meterbridge.*` where the conventions define no name.
"""

from collections.abc import Mapping
from typing import Final

HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"
ERROR_TYPE: Final = "error.type"
SYSTEM: Final = "messaging.system"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
OFFSET: Final = "messaging.kafka.offset"
GROUP: Final = "messaging.consumer.group.name"
COUNT: Final = "messaging.batch.message_count"
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_MODEL: Final = "gen_ai.request.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
DECISION: Final = "meterbridge.decision"
HELD: Final = "meterbridge.held"
TRANSACTION_ID: Final = "meterbridge.transaction_id"
CALLS: Final = "meterbridge.calls"
OUTCOME: Final = "meterbridge.outcome"
REASON: Final = "meterbridge.reason"

ALLOWED: Final = frozenset(
    {value for name, value in globals().items() if name.isupper() and isinstance(value, str) and "." in value}
)

#: Texts are cut to this many characters: a model's name may come from a client.
TEXT_CHARS: Final = 128

#: LiteLLM's call types that the GenAI conventions have a name for.
_OPERATIONS: Final = {
    "completion": "chat",
    "acompletion": "chat",
    "anthropic_messages": "chat",
    "responses": "chat",
    "aresponses": "chat",
    "text_completion": "text_completion",
    "atext_completion": "text_completion",
    "embedding": "embeddings",
    "aembedding": "embeddings",
    "generate_content": "generate_content",
    "agenerate_content": "generate_content",
}

Value = str | int


def attributes(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the attributes that have a value, with their texts cut.

    Raises:
        KeyError: a name is not in the list.
    """
    if unknown := values.keys() - ALLOWED:
        raise KeyError(*unknown)
    return {
        name: value[:TEXT_CHARS] if isinstance(value, str) else value for name, value in values.items() if value != ""
    }


def kafka(topic: str, operation: str, kind: str) -> dict[str, Value]:
    """Return the attributes of every span about a Kafka record. `kind`: `send` or `process`, the type of the operation."""
    return {SYSTEM: "kafka", DESTINATION: topic, OPERATION: operation, OPERATION_TYPE: kind}


def operation_of(call_type: str) -> str:
    """Return the GenAI conventions' name for a call type of LiteLLM; `""` = the conventions define none."""
    return _OPERATIONS.get(call_type, "")
