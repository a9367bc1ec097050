"""The context of a call: data that billing does not need and that cannot be fetched again, for later questions.

The ingress takes it from LiteLLM's fields by allow-lists, and `litellm.usage.enriched` carries it unchanged.
docs/ingress.md has the table of meanings (OpenTelemetry's GenAI conventions, FOCUS).
"""

from typing import Any

import msgspec

#: The longest text that is kept, characters. Names are shorter than this, and prompts are longer.
MAX_TEXT = 128
MAX_TAGS = 50


class CallContext(msgspec.Struct, omit_defaults=True, gc=False):
    """The context of one call. Every field may be absent.

    Fields:
        tags: the entries of LiteLLM's `request_tags` that begin with one of `KEPT_TAG_PREFIXES`.
        cost_breakdown: LiteLLM's breakdown: dollars by kind of cost, and percents; numbers only.
        cache_creation_input_tokens: tokens written to the provider's cache; `tokens_input` includes them.
        time_to_first_token: seconds from the call's start to the first token.
        model_id: id of the LiteLLM deployment that answered.
        server_address: host of the provider's API, without path, port or credentials.
        spend_logs_metadata: LiteLLM's metadata of the spend log; only the names in `KEPT_METADATA`.
        error_code, error_class: for a failed call the HTTP status, and the name of LiteLLM's exception, never its
            message.
        key_metadata: the metadata of LiteLLM's key and team; only the names in `KEPT_METADATA`.
    """

    tags: list[str] = []
    cost_breakdown: dict[str, Any] = {}
    cache_creation_input_tokens: int = 0
    time_to_first_token: float | None = None
    model_id: str = ""
    server_address: str = ""
    spend_logs_metadata: dict[str, str] = {}
    key_metadata: dict[str, str] = {}
    error_code: str = ""
    error_class: str = ""
