"""What is kept of a call beside what is billed: for questions that are asked later, of data that cannot be had again.

The ingress takes it from LiteLLM's fields by allow-lists, and `litellm.usage.enriched` carries it unchanged.
docs/ingress.md has the table of meanings (OpenTelemetry's GenAI conventions, FOCUS).
"""

from typing import Any

import msgspec

#: A text that is longer is left out: a name is short, and what was said is not.
MAX_TEXT = 128
MAX_TAGS = 50


class CallContext(msgspec.Struct, omit_defaults=True, gc=False):
    """The context of one call. Every field may be absent.

    Fields:
        tags: LiteLLM's `request_tags` that begin with one of `KEPT_TAG_PREFIXES`.
        cost_breakdown: LiteLLM's: dollars by kind of cost, and percents; numbers alone.
        cache_creation_input_tokens: tokens written to the provider's cache; `tokens_input` includes them.
        time_to_first_token: seconds from the call's start to the first token.
        model_id: of LiteLLM's deployment that answered.
        server_address: host of the provider's API, without path, port or credentials.
        spend_logs_metadata: LiteLLM's, the names in `KEPT_METADATA` alone.
        key_metadata: the metadata of LiteLLM's key and team, the names in `KEPT_METADATA` alone.
    """

    tags: list[str] = []
    cost_breakdown: dict[str, Any] = {}
    cache_creation_input_tokens: int = 0
    time_to_first_token: float | None = None
    model_id: str = ""
    server_address: str = ""
    spend_logs_metadata: dict[str, str] = {}
    key_metadata: dict[str, str] = {}
